"""The root of the tree of errors: each message says what happened and what to do about it.

``objectives.errors`` and ``study.errors`` add the branches that those packages raise.
"""

from collections.abc import Sequence


def first_line(text: str) -> str:
    """The first line of an error's text, or that it has none."""
    return (text.strip().splitlines() or ["no message"])[0]


def few(names: Sequence[str], most: int = 3) -> str:
    """The first `most` of names for an error's text, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class BnvitError(Exception):
    """A known failure: the command line prints its message and exits with `exit_code`."""

    exit_code = 1


class InputError(BnvitError):
    """The request itself is wrong: an unknown name, a reversed range. Nothing was created."""

    exit_code = 2
