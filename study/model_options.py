"""What the command line says of a model, as values."""

from models.errors import InputError
from models.registry import variant
from models.switches import Switches, parse_switches


def switches_of(model: str, texts: list[str] | None) -> Switches | None:
    """The switches of the model called `model` from NAME=VALUE texts; None where none are given.

    Raises InputError for a name or value that is none.
    """
    if not texts:
        return None
    return parse_switches(dict(pair(text) for text in texts), variant(model).switches)


def pair(text: str) -> tuple[str, str]:
    """Name and value of a text of --set; raises InputError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text} must be NAME=VALUE")
    return name, value
