"""Errors of data and training."""

from models.errors import BnvitError


class DataError(BnvitError):
    """A data set is missing, damaged or cannot be fetched; the message names files and folder."""


class GraphError(BnvitError, RuntimeError):
    """A training step cannot be recorded as a CUDA graph; without graphs it may well be trained."""


class StateError(BnvitError):
    """A saved state belongs to another run; start that run afresh or restore the right file."""


class TeamLostError(BnvitError):
    """Another process of a worker of several is gone or silent; start the worker again."""


class MateError(BnvitError):
    """Another process of this worker met a known error; the message carries it."""


class MateFailedError(RuntimeError):
    """Another process of this worker failed at the trial; the message carries how."""
