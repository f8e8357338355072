"""The authority of a team's stack, given to a worker elsewhere in one variable."""

import base64
import os
from pathlib import Path

import pytest

from models.errors import InputError
from study.settings import Settings
from study.stack.certificates import AUTHORITY, CERTIFICATE, KEY, ensure_certificate
from study.trust import trust

VARIABLES = ("PGSSLMODE", "PGSSLROOTCERT", "MLFLOW_TRACKING_SERVER_CERT_PATH")


@pytest.fixture(autouse=True)
def no_trust_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")


@pytest.fixture
def authority(tmp_path: Path) -> bytes:
    ensure_certificate(tmp_path, ["stack.example"])
    return (tmp_path / AUTHORITY).read_bytes()


def settings(data_dir: Path, ca: str | None) -> Settings:
    return Settings(data_dir=data_dir, storage_url=None, mlflow_uri=None, ca=ca)


@pytest.mark.parametrize("is_base64", [True, False])
def test_postgres_and_mlflow_trust_it_and_nobody_else(
    tmp_path: Path, authority: bytes, is_base64: bool
) -> None:
    given = base64.b64encode(authority).decode() if is_base64 else authority.decode()
    trust(settings(tmp_path / "data", given))
    mode, *paths = (os.environ[name] for name in VARIABLES)
    assert mode == "verify-full"
    assert [Path(path).read_bytes().strip() for path in paths] == [authority.strip()] * 2


def test_without_one_nothing_changes(tmp_path: Path) -> None:
    trust(settings(tmp_path, None))
    assert [os.environ[name] for name in VARIABLES] == ["", "", ""]


@pytest.mark.parametrize("ca", ["nonsense", "bm9uc2Vuc2U=", "-----BEGIN"])
def test_what_is_no_certificate_is_refused(tmp_path: Path, ca: str) -> None:
    with pytest.raises(InputError, match="BNVIT_CA is no certificate"):
        trust(settings(tmp_path, ca))


def test_a_certificate_is_kept_as_long_as_it_is_good_for_all_hosts(tmp_path: Path) -> None:
    assert ensure_certificate(tmp_path, ["one.example", "192.0.2.1"])
    first = (tmp_path / CERTIFICATE).read_bytes()
    assert not ensure_certificate(tmp_path, ["192.0.2.1"])
    assert (tmp_path / CERTIFICATE).read_bytes() == first
    assert ensure_certificate(tmp_path, ["one.example", "two.example"])
    assert (tmp_path / CERTIFICATE).read_bytes() != first
    assert (tmp_path / KEY).stat().st_mode & 0o077 == 0
