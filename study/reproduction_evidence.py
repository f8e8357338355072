"""From what is asked to the evidence: run what is missing, then read all that is there."""

from collections.abc import Sequence
from dataclasses import replace

from models.registry import DEFECTS
from study.article_claims import LRS, MODELS
from study.blog_claims import BACKBONES, blog_models
from study.blog_claims import IMAGE as BLOG_IMAGE
from study.claims import Evidence, Part
from study.counts import counted_model
from study.errors import IncompleteError, UnknownStudyError
from study.reproduction import Reproduction
from study.reproduction_races import Races
from study.reproduction_runs import Runs
from study.results import StudyResult, read_result
from study.storage import Store, open_store
from study.tiny_imagenet_claims import IMAGE as TINY_IMAGE
from study.tiny_imagenet_claims import tiny_imagenet_models

_TRAINED: tuple[Part, ...] = ("experiment1", "experiment2", "dropout")


def run_missing(asked: Reproduction, races: Races, runs: Runs) -> int:
    """Run what is asked for and not there yet; the exit code of the first that was stopped."""
    for part in asked.parts:
        if part == "speed":
            races.article(run=True)
            races.own(run=True)
        elif part == "denormals":
            races.slowdowns(run=True)
        elif part == "inference":
            races.inference(run=True)
        elif part in _TRAINED and (code := runs.train(part)):
            return code
    return 0


def evidence_of(asked: Reproduction, races: Races, runs: Runs) -> Evidence:
    """All that is there for a source, whether it was run now or earlier."""
    if asked.source == "article":
        with open_store(runs.settings) as store:
            return _trained(_raced(Evidence(), asked, races), asked, runs, store)
    names, image = (tiny_imagenet_models(), TINY_IMAGE)
    found = Evidence()
    if asked.source == "blog":
        names, image = blog_models(), BLOG_IMAGE
        found = Evidence(inference=races.inference(run=False))
        if len(found.inference) < len(BACKBONES):
            found = _missing(found, asked, "inference")
    if "counts" not in asked.parts:
        return _missing(found, asked, "counts")
    return replace(found, counts={name: counted_model(name, image) for name in names})


def _raced(found: Evidence, asked: Reproduction, races: Races) -> Evidence:
    own, one_block = races.own(run=False)
    found = replace(
        found,
        article_speeds=races.article(run=False),
        own_speeds=own,
        own_one_block=one_block,
        slowdowns=races.slowdowns(run=False),
    )
    if found.article_speeds is None:
        found = _missing(found, asked, "speed")
    if len(found.slowdowns) < len(MODELS) * len(LRS):
        found = _missing(replace(found, slowdowns=()), asked, "denormals")
    return found


def _trained(found: Evidence, asked: Reproduction, runs: Runs, store: Store) -> Evidence:
    """The studies of each part, where all of them have ended."""
    names: dict[Part, list[str]] = {
        part: [request.study_name for request in runs.requests(part)] for part in _TRAINED
    }
    names["experiment2"] += [runs.fit_name(model) for model in MODELS]
    for part in _TRAINED:
        results = _results(store, names[part])
        if results is None and part == "experiment1":  # the models with one block come after these
            results = _results(store, names[part][: len(MODELS)])
        if results is None:
            found = _missing(found, asked, part)
        elif part == "experiment1":
            one_block = [r for r in results if r.identity.model in DEFECTS]
            whole = [r for r in results if r.identity.model not in DEFECTS]
            found = replace(found, sweeps=tuple(whole), one_block=tuple(one_block))
        elif part == "experiment2":
            count = len(MODELS)
            found = replace(found, searches=results[:count], fits=results[count:])
        else:
            found = replace(found, dropout=results)
    return found


def _results(store: Store, names: Sequence[str]) -> tuple[StudyResult, ...] | None:
    """None where any of the studies is not there, or has not ended."""
    try:
        return tuple(read_result(store, name) for name in names)
    except (UnknownStudyError, IncompleteError):
        return None


def _missing(found: Evidence, asked: Reproduction, part: Part) -> Evidence:
    why = f"not run, or not with this budget; {asked.command(part)}"
    return replace(found, missing={**found.missing, part: why})
