"""`python -m study.stack.certify`: have a certificate for the servers of a team."""

import sys

from study.stack.certificates import ensure_certificate
from study.stack.team import ReachSettings


def main() -> None:
    """Make it where there is none for all names; says which names it is for."""
    settings = ReachSettings()
    try:
        is_new = ensure_certificate(settings.tls_folder, settings.hosts)
    except OSError as error:
        sys.exit(f"certificate: cannot write to {settings.tls_folder} ({error.strerror})")
    names = ", ".join(settings.hosts)
    if is_new:
        print(f"certificate: a new one for {names}; give workers elsewhere a new worker.env")
    else:
        print(f"certificate: good for {names}")


if __name__ == "__main__":
    main()
