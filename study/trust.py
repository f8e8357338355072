"""Whom to trust over TLS: the authority of a team's stack, for Postgres' and MLflow's clients."""

import base64
import hashlib
import os
from pathlib import Path

from models.errors import InputError
from study.data_dir import unusable
from study.settings import Settings

_BEGIN = b"-----BEGIN CERTIFICATE-----"


def trust(settings: Settings) -> None:
    """Have this process, and those that it starts, reach servers over TLS that `ca` vouches for.

    Nothing happens where none is given. Raises InputError where it is no certificate.
    """
    if settings.ca is None:
        return
    pem = _decoded(settings.ca)
    digest = hashlib.sha256(pem).hexdigest()[:12]
    path = settings.data_dir / f"ca-{digest}.crt"
    try:
        if not path.exists():
            _write(path, pem)
    except OSError as error:
        raise unusable(settings.data_dir, error) from error
    os.environ["PGSSLMODE"] = "verify-full"
    os.environ["PGSSLROOTCERT"] = str(path)
    os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(path)


def _decoded(given: str) -> bytes:
    """PEM, given as it is or as base64 in one line, which a file of variables can hold."""
    text = given.strip().encode()
    try:
        pem = text if text.startswith(_BEGIN) else base64.b64decode(text, validate=True)
    except ValueError:
        pem = b""
    if not pem.startswith(_BEGIN):
        raise InputError(
            "BNVIT_CA is no certificate; it is the line of worker.env, PEM as base64, without a "
            "line break in it"
        )
    return pem


def _write(path: Path, pem: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_bytes(pem)
    part.rename(path)
