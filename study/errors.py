"""Errors of the service; with `models.errors` and `objectives.errors` the whole tree."""

from models.errors import BnvitError, InputError


class StorageError(BnvitError):
    """The Postgres store cannot be reached, started or used; the message says how to get there."""


class StoreAwayError(StorageError):
    """The store stayed away for longer than a worker waits; run again once it is back."""


class VersionError(StorageError):
    """A study was written by another version of bnvit-study; use that one."""


class LockedError(StorageError):
    """Another process keeps a lock of the store for too long; it may hang."""


class TrackingError(BnvitError):
    """The MLflow store cannot be reached or used."""


class IdentityError(InputError):
    """An existing study differs in a fixed field; the message prints the command that works."""


class DataDifferError(InputError):
    """This node's data are not those that the study was begun with; put the same files here."""


class UnknownStudyError(InputError):
    """There is no such study; the message names the nearest."""


class IncompleteError(InputError):
    """A study has not what a comparison needs; the message says what is missing."""


class UnequalError(InputError):
    """What is to be compared is not alike; the message names in what, and the way round it."""


class WorkerError(BnvitError):
    """A worker stopped because trials kept failing; the log carries each reason."""


class ClusterError(BnvitError):
    """The Ray cluster cannot be reached or used, or is lost; the message says how to go on."""


class UiError(BnvitError):
    """A web server did not start; the message carries its last words."""


class MetricsError(BnvitError):
    """Metrics cannot be served where that was asked; choose another port or host."""


class StackError(BnvitError):
    """The services around the workers cannot be started or stopped; the message says why."""


class ExportError(BnvitError):
    """What would be written does not compute what the model does; nothing was written."""
