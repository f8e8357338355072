"""Which errors of MLflow pass by themselves, and which are an answer."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from study.errors import TrackingError
from study.tracking import TrackingOutageError

# 401: a token that ran out. 404: a proxy before a server that is away. 408, 429, 499: too slow.
# 409: another transaction was first.
_PASSING_STATUSES = {401, 408, 409, 429, 499}
_NOT_IMPLEMENTED = 501
# MLflow gives most errors of its database, a full pool of connections among them, the code of a
# bad request. SQLAlchemy's text tells them apart: it ends in a link, and these two concern the
# data that was sent.
_DATABASE_LINK = "sqlalche.me/e/"
_OF_THE_DATA = (DataError.code, IntegrityError.code)
_OLDER_TABLES = "out-of-date database schema"
_LASTING_OS_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
# Of calls with wrong arguments, by us: not MLflow's doing.
_MISTAKES = (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError)


@contextmanager
def errors_told() -> Iterator[None]:
    """Raise MLflow's errors as TrackingError, those that pass as TrackingOutageError."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        if isinstance(error, _MISTAKES) and not isinstance(error, OSError):
            raise
        if _OLDER_TABLES in str(error):
            raise TrackingError(
                "MLflow's tables were made by an older MLflow; 'bnvit-study migrate' backs up "
                "those beside the studies and brings them up to date, 'mlflow db upgrade' others"
            ) from error
        reason = _reason(error)
        if passes(error):
            raise TrackingOutageError(f"MLflow is away or out of order: {reason}") from error
        raise TrackingError(f"MLflow refused: {reason}") from error


def passes(error: Exception) -> bool:
    """Whether the same call may succeed later: an outage, not a refusal."""
    if isinstance(error, MlflowException):
        if error.error_code == "BAD_REQUEST" and _DATABASE_LINK in str(error):
            return not any(f"/{code}" in str(error) for code in _OF_THE_DATA)
        is_unknown_place = error.error_code == "ENDPOINT_NOT_FOUND"
        return is_unknown_place or _is_passing(error.get_http_status_code())
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _is_passing(error.response.status_code)
    if isinstance(error, SQLAlchemyError):
        return not isinstance(error, DataError | IntegrityError)
    return not isinstance(error, _LASTING_OS_ERRORS)


def _is_passing(status: int) -> bool:
    return status in _PASSING_STATUSES or (status >= 500 and status != _NOT_IMPLEMENTED)


def _reason(error: Exception) -> str:
    """One line, without passwords; of a request that never got through, what the system said."""
    first: BaseException = error
    while first.__context__ is not None:
        first = first.__context__
    told = str(first) if isinstance(first, OSError) and str(first) else str(error)
    told = re.sub(r"//[^/@\s]*@", "//***@", " ".join(told.split()))
    return told[:300] or type(error).__name__
