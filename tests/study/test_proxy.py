"""Where the proxy sends what is asked for: held against the routes of the programs behind it."""

import importlib.resources
import re
from collections.abc import Iterable

import optuna
import optuna_dashboard
import pytest

from models.errors import InputError
from study.stack.login import Login

CONFIGURATION = importlib.resources.files("study.stack").joinpath("nginx.conf.in").read_text()
DASHBOARD, CLOSED = (
    re.compile(pattern) for pattern in re.findall(r"location ~ (\S+) \{", CONFIGURATION)
)
ROOT = "/"
DANGEROUS = re.compile(r"/(assistant|demo|gateway|gateway-proxy|genai|jobs|scorers?|webhooks)(/|$)")
NEEDED = re.compile(r"/mlflow(-artifacts)?/(artifacts|experiments|metrics|runs|logged-models)(/|$)")


def paths(routes: Iterable[str]) -> set[str]:
    """Routes with something in the place of their variables."""
    return {re.sub(r"<[^>]*>|\{[^}]*\}", "1", route) for route in routes}


def test_the_dashboard_gets_all_that_it_serves() -> None:
    application = optuna_dashboard.wsgi(optuna.storages.InMemoryStorage())
    served = paths(route.rule.split("<:re")[0] for route in application.routes) - {ROOT}
    assert len(served) > 15
    assert [path for path in served if not DASHBOARD.match(path)] == []


def test_mlflow_gets_all_that_it_serves_but_what_is_closed() -> None:
    from mlflow.server import app
    from mlflow.server.assistant.api import assistant_router
    from mlflow.server.gateway_api import gateway_router
    from mlflow.server.job_api import job_api_router

    served = paths(str(rule) for rule in app.url_map.iter_rules())
    assert len(served) > 100
    assert [path for path in served if DASHBOARD.match(path)] == []
    assert [path for path in served if DANGEROUS.search(path) and not CLOSED.match(path)] == []
    assert [path for path in served if NEEDED.search(path) and CLOSED.match(path)] == []
    for router in (assistant_router, gateway_router, job_api_router):
        dangerous = paths(route.path for route in router.routes)  # type: ignore[attr-defined]
        assert dangerous
        assert [path for path in dangerous if not CLOSED.match(path)] == []


@pytest.mark.parametrize(
    ("password", "token", "part"),
    [
        ("short", "a" * 24, "password of the pages is shorter than 12"),
        ("long enough it is", "short", "workers' password must have 24 characters"),
        ("long enough it is", "a" * 24 + '"', "letters, digits"),
        ("long enough it is", "a" * 24 + "\n", "letters, digits"),
    ],
)
def test_weak_secrets_are_refused(password: str, token: str, part: str) -> None:
    with pytest.raises(InputError, match=part):
        Login(password, token)


def test_secrets_are_not_shown_by_accident() -> None:
    login = Login("long enough it is", "a" * 24)
    assert "long" not in repr(login)
    assert "aaa" not in repr(login)
    assert "long" not in login.users_file()
    assert login.session != Login("long enough it is", "a" * 24).session
