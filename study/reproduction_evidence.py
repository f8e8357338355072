"""From what is asked to the evidence: run what is missing, then read all that is there."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from study.blog_claims import IMAGE as BLOG_IMAGE
from study.blog_claims import blog_models
from study.claims import Evidence, Part
from study.counts import counted_model
from study.errors import IncompleteError, UnknownStudyError
from study.reproduction import ON_REQUEST, SOURCE_PARTS, Reproduction
from study.reproduction_races import ONE_BLOCKS, Races
from study.reproduction_runs import Runs
from study.results import StudyResult, read_result
from study.storage import Store, open_store
from study.tiny_imagenet_claims import IMAGE as TINY_IMAGE
from study.tiny_imagenet_claims import tiny_imagenet_models

_RACES: tuple[Part, ...] = ("speed", "denormals", "inference")
_TRAINED: tuple[Part, ...] = ("experiment1", "experiment2", "dropout")

_Read = Callable[[Evidence], Evidence]


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
    """All that is there for a source, whether it was asked for now or earlier."""
    found = Evidence()
    if asked.source == "article":
        found = _raced(found, asked, races)
        with open_store(runs.settings) as store:
            for part in _TRAINED:
                found = _trained(found, asked, runs, store, part)
        return found
    if asked.source == "blog":
        speeds = races.inference(run=False)
        found = replace(found, inference=speeds)
        if len(speeds) < 4:
            found = _missing(found, asked, "inference")
    if "counts" not in asked.parts:
        return _missing(found, asked, "counts")
    image, names = (
        (BLOG_IMAGE, (*blog_models(), *_inferred()))
        if asked.source == "blog"
        else (TINY_IMAGE, tiny_imagenet_models())
    )
    return replace(found, counts={name: counted_model(name, image) for name in names})
