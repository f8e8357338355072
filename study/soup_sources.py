"""What goes into a soup, found by what people call it: a study's kept weights, runs, files."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from models.errors import InputError
from models.registry import variant
from objectives import card
from objectives.card import Card
from objectives.soup import LEAST_MEMBERS
from study.errors import TrackingError
from study.inspect_subjects import Found
from study.overview import Overview
from study.settings import Settings
from study.storage import open_store, tracking_uri
from study.studies import runs_of, show_study
from study.trained import RunPlace, is_file_name, is_run_id, tracker_at, trained_weights
from study.words import counted


def found_members(targets: Sequence[str], settings: Settings) -> list[Found]:
    """The models that `targets` name, read: of a single study all that it kept.

    Of several studies each gives its best. Raises InputError where there are too few.
    """
    if len(set(targets)) < len(targets):
        raise InputError("a member is named twice; name each once")
    if len(targets) == 1:
        (target,) = targets
        if is_file_name(target) or is_run_id(target):
            raise InputError(
                f"a soup of {target} alone is {target}; name more files or runs, or a study"
            )
        return _members_of(target, settings)
    return [_member(target, settings) for target in targets]


def _member(target: str, settings: Settings) -> Found:
    with trained_weights(target, settings) as found:
        trained = card.load(found.path)
    name = variant(trained[0].model)
    return Found(target, found.source, trained, name, found.run, found.study)


def _members_of(study: str, settings: Settings) -> list[Found]:
    """The models of a study's trials that kept their weights, by number."""
    with ExitStack() as stack:
        store = stack.enter_context(open_store(settings))
        seen = show_study(store, study)
        if seen.identity.is_joined:
            raise InputError(
                f"'{study}' trains on the validation images too, and a soup is judged by them; "
                "take a study that was trained on the train split alone"
            )
        runs = runs_of(seen.source)
        if runs is None or settings.is_tracking_off:
            raise InputError(f"no weights of '{study}' were kept: it is not recorded in MLflow")
        uri = tracking_uri(settings.mlflow_uri, store)
        tracker = stack.enter_context(tracker_at(RunPlace(runs.parent_run_id, uri)))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        try:
            tracker.check_study(runs, seen.uuid)
            kept = tracker.weights_kept(runs)
            _check_number(seen, kept)
            found = []
            for number, run_id in kept.items():
                place = folder / str(number)
                place.mkdir()
                trained = card.load(tracker.download_weights(run_id, place))
                found.append(_trial(seen, number, trained, RunPlace(run_id, uri)))
        except TrackingError as error:
            raise InputError(f"the weights of '{study}' are not to be had ({error})") from error
    return found


def _trial(seen: Overview, number: int, trained: tuple[Card, nn.Module], place: RunPlace) -> Found:
    source = f"trial {number} of study {seen.study}"
    chosen = variant(trained[0].model)
    return Found(f"trial {number}", source, trained, chosen, place, seen.identity)


def _check_number(seen: Overview, kept: Mapping[int, str]) -> None:
    if len(kept) < LEAST_MEMBERS:
        complete = seen.outcomes.get("complete", 0)
        raise InputError(
            f"'{seen.study}' kept the weights of {len(kept)} of its {counted(complete, 'trial')} "
            f"that were trained to the end, and a soup takes at least {LEAST_MEMBERS}; rerun it "
            "with --keep-weights all and more --trials, or with --fresh: trials that end from then "
            "on keep theirs"
        )
