"""Whether everything is as it should be: a list of findings, good and bad."""

from functools import partial

from models.errors import BnvitError
from study.doctor_data import check_data
from study.doctor_mlflow import check_mlflow
from study.doctor_node import check_device, check_disk, check_places, check_spool
from study.doctor_store import check_clock, check_schema, check_store, check_workers
from study.finding import Check, Finding, carried_out, failure
from study.settings import Settings
from study.storage import Store, open_store

__all__ = ["Finding", "examine"]


def examine(settings: Settings, device_name: str) -> list[Finding]:
    """Look at the store, its studies, MLflow and this node; nothing is mended or downloaded.

    A check that fails does not hide the others. Without a store, what needs it is left out.
    """
    try:
        with open_store(settings) as store:
            checks = [*_of_store(settings, store), *_of_node(settings, device_name, store)]
            return _findings(checks)
    except BnvitError as error:
        checks = [_of_mlflow(settings, None), *_of_node(settings, device_name, None)]
        return [failure("store", error), *_findings(checks)]


_Named = tuple[str, Check]


def _findings(checks: list[_Named]) -> list[Finding]:
    return [finding for subject, check in checks for finding in carried_out(subject, check)]


def _of_store(settings: Settings, store: Store) -> list[_Named]:
    return [
        ("store", partial(check_store, store)),
        ("schema", partial(check_schema, store)),
        ("clock", partial(check_clock, store)),
        ("workers", partial(check_workers, store)),
        ("studies", partial(check_data, settings, store)),
        _of_mlflow(settings, store),
    ]


def _of_mlflow(settings: Settings, store: Store | None) -> _Named:
    return "MLflow", partial(check_mlflow, settings, store)


def _of_node(settings: Settings, device_name: str, store: Store | None) -> list[_Named]:
    return [
        ("spool", partial(check_spool, settings, store)),
        ("checkpoints", partial(check_places, settings, store)),
        ("device", partial(check_device, device_name)),
        ("disk", partial(check_disk, settings)),
    ]
