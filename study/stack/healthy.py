"""`python -m study.stack.healthy URL`: exits with 0 if a page answers, as a health check."""

import sys
import urllib.request

TIMEOUT_S = 5


def main() -> None:
    """Ask once."""
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=TIMEOUT_S):
            return
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")


if __name__ == "__main__":
    main()
