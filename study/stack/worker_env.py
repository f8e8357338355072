"""`python -m study.stack.worker_env`: what a worker on another node needs, as variables."""

import base64
import sys

from models.errors import BnvitError, InputError
from study.stack.certificates import AUTHORITY
from study.stack.team import WORKER, ReachSettings, read_team_settings


def main() -> None:
    """Print it; it holds the workers' password."""
    try:
        for name, value in variables().items():
            print(f"{name}={value}")
    except BnvitError as error:
        sys.exit(f"worker_env: {error}")
    except OSError as error:
        sys.exit(f"worker_env: no certificate yet ({error}); start the stack first")


def variables() -> dict[str, str]:
    """Addresses and credentials. Raises InputError where other nodes cannot reach this machine."""
    settings, reached = read_team_settings(), ReachSettings()
    host = reached.public_host
    if host is None:
        raise InputError(
            "other nodes cannot reach this machine yet: set BNVIT_BIND in .env, and BNVIT_HOST "
            "where that is 0.0.0.0"
        )
    secret = settings.worker_password.get_secret_value()
    authority = (settings.tls_folder / AUTHORITY).read_bytes()
    return {
        "BNVIT_STORAGE_URL": f"postgresql://{WORKER}@{host}:{reached.postgres_port}/optuna",
        "PGPASSWORD": secret,
        "MLFLOW_TRACKING_URI": f"https://{host}:{reached.https_port}",
        "MLFLOW_TRACKING_TOKEN": secret,
        "BNVIT_CA": base64.b64encode(authority).decode(),
    }


if __name__ == "__main__":
    main()
