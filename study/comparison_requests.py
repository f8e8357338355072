"""What is to be compared: from the words of the command line to names of studies."""

from collections.abc import Sequence

import optuna

from models.errors import InputError
from study.experiment_requests import parse_names
from study.request import Request
from study.storage import Store


def named_studies(
    store: Store, studies: Sequence[str], models: str | None, dataset: str
) -> tuple[str, ...]:
    """The studies that are named, or those of models: their fits if all have one, else searches.

    Raises InputError where neither or both are given, or a study is named twice.
    """
    if bool(studies) == bool(models):
        raise InputError("name STUDIES, or models with --models, one of both")
    if models is None:
        if len(set(studies)) < len(studies):
            raise InputError("a study is named twice; name each once")
        return tuple(studies)
    requests = [Request(model=name, dataset=dataset) for name in parse_names(models)]
    searches = tuple(request.study_name for request in requests)
    fits = tuple(f"{name}-fit" for name in searches)
    known = set(optuna.get_all_study_names(store.storage))
    return fits if known.issuperset(fits) else searches


def check_target(target: float) -> float:
    """Raise InputError for a target that is no share."""
    if not 0.0 < target <= 1.0:
        raise InputError(f"--target {target:g} must be a share above 0, at most 1")
    return target
