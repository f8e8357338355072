"""An outage of MLflow is told from a refusal, whatever stands between."""

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg
import pytest
import requests
import sqlalchemy.exc
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from study.errors import TrackingError
from study.mlflow_errors import errors_told, passes
from study.mlflow_tracker import MlflowTracker
from study.tracking import StudyRuns, TrackingOutageError


@dataclass
class Answer:
    """What a server says to everything."""

    status: int = 200
    body: str = "{}"
    port: int = 0
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def answer() -> Iterator[Answer]:
    said = Answer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said.asked.append(self.path)
            self.send_response(said.status)
            self.end_headers()
            self.wfile.write(said.body.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        said.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield said
        server.shutdown()
        thread.join()


def refusal(code: str) -> str:
    return json.dumps({"error_code": code, "message": "because"})


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, refusal("INTERNAL_ERROR")),
        (502, "<html>Bad gateway</html>"),
        (503, refusal("TEMPORARILY_UNAVAILABLE")),
        (504, ""),
        (429, refusal("REQUEST_LIMIT_EXCEEDED")),
        (408, ""),
        (401, "You are not authenticated"),
        (404, "default backend - 404"),
        (200, "<html>Maintenance</html>"),
        (400, json.dumps({"error_code": "BAD_REQUEST", "message": "(https://sqlalche.me/e/21/3o7r)"})),
    ],
)  # fmt: skip
def test_what_passes_is_an_outage_and_asked_once(answer: Answer, status: int, body: str) -> None:
    answer.status, answer.body = status, body
    tracker = MlflowTracker(f"http://127.0.0.1:{answer.port}")
    with pytest.raises(TrackingOutageError, match="away or out of order"):
        tracker.trials.log_rung("run", 1, {"epoch": 1.0}, 0)
    assert len(answer.asked) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, refusal("INVALID_PARAMETER_VALUE")),
        (400, refusal("BAD_REQUEST")),
        (400, json.dumps({"error_code": "BAD_REQUEST", "message": "(https://sqlalche.me/e/21/9h9h)"})),
        (403, "Permission denied"),
        (404, refusal("RESOURCE_DOES_NOT_EXIST")),
        (501, refusal("NOT_IMPLEMENTED")),
    ],
)  # fmt: skip
def test_what_is_said_of_the_request_is_a_refusal(answer: Answer, status: int, body: str) -> None:
    answer.status, answer.body = status, body
    tracker = MlflowTracker(f"http://127.0.0.1:{answer.port}")
    with pytest.raises(TrackingError, match="MLflow refused") as told:
        tracker.trials.log_rung("run", 1, {"epoch": 1.0}, 0)
    assert not isinstance(told.value, TrackingOutageError)


def test_an_absent_server_is_told_in_a_few_words() -> None:
    tracker = MlflowTracker("http://127.0.0.1:9")
    with pytest.raises(TrackingOutageError) as told:
        tracker.check_study(StudyRuns("1", "parent"), "uuid")
    assert str(told.value).startswith("MLflow is away or out of order: [Errno")
    assert str(told.value).endswith("Connection refused")


def test_not_to_be_let_in_is_an_outage(answer: Answer) -> None:
    answer.status, answer.body = 403, "Invalid Host header"
    tracker = MlflowTracker(f"http://127.0.0.1:{answer.port}")
    with pytest.raises(TrackingOutageError, match="Invalid Host header"):
        tracker.check_study(StudyRuns("1", "parent"), "uuid")


def http_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("of an artifact", response=response)


def of_database(error: sqlalchemy.exc.SQLAlchemyError) -> MlflowException:
    """As MLflow's own store passes it on."""
    return MlflowException(message=str(error), error_code=codes.BAD_REQUEST)


@pytest.mark.parametrize(
    ("error", "is_outage"),
    [
        (http_error(500), True),
        (http_error(413), False),
        (requests.ConnectionError(), True),
        (requests.Timeout(), True),
        (OSError(28, "No space left on device"), True),
        (PermissionError(13, "Permission denied"), False),
        (sqlalchemy.exc.OperationalError("", {}, psycopg.OperationalError()), True),
        (sqlalchemy.exc.DataError("", {}, psycopg.DataError()), False),
        (of_database(sqlalchemy.exc.TimeoutError("full", code="3o7r")), True),
        (of_database(sqlalchemy.exc.InterfaceError("", {}, psycopg.Error())), True),
        (of_database(sqlalchemy.exc.DataError("", {}, psycopg.DataError())), False),
        (of_database(sqlalchemy.exc.IntegrityError("", {}, psycopg.IntegrityError())), False),
        (MlflowException("database is locked", codes.TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("no such run", codes.RESOURCE_DOES_NOT_EXIST), False),
    ],
)
def test_errors_of_databases_and_artifacts(error: Exception, is_outage: bool) -> None:
    assert passes(error) == is_outage


def test_passwords_are_not_told() -> None:
    with pytest.raises(TrackingError) as told, errors_told():
        raise MlflowException("API request to http://me:secret@host:5000/api failed")
    assert "secret" not in str(told.value)
    assert "http://***@host:5000/api" in str(told.value)


def test_mistakes_of_ours_stay_what_they_are() -> None:
    with pytest.raises(KeyError), errors_told():
        raise KeyError("epoch")
