"""Settings from the environment."""

from pathlib import Path

import pytest

from models.errors import InputError
from study.cli_options import settings_from
from study.settings import Settings


def test_the_environment_is_read_and_the_command_line_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BNVIT_DATA_DIR", "/somewhere")
    monkeypatch.setenv("BNVIT_STORAGE_URL", "postgresql://a@b/c")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from-environment")
    settings = Settings()
    assert settings.data_dir == Path("/somewhere")
    assert settings.storage_url == "postgresql://a@b/c"
    assert settings.mlflow_uri == "http://from-environment"
    given = settings_from("postgresql://d@e/f", "http://given")
    assert (given.data_dir, given.storage_url, given.mlflow_uri) == (
        Path("/somewhere"),
        "postgresql://d@e/f",
        "http://given",
    )
    assert settings_from(None, None) == settings


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("BNVIT_LEASE_S", "abc", "valid number"),
        ("BNVIT_LEASE_S", "inf", "less than or equal to 86400"),
        ("BNVIT_LEASE_S", "nan", "less than or equal to 86400"),
        ("BNVIT_LEASE_S", "0", "greater than 0"),
        ("BNVIT_STORE_PATIENCE_S", "-1", "greater than or equal to 0"),
        ("BNVIT_STORE_PATIENCE_S", "inf", "less than or equal"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=f"{variable} is '{value}': .*{reason}"):
        settings_from()
