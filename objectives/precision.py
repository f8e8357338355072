"""In which precision matrix products are computed."""

from typing import Literal, get_args

from models.errors import InputError

Precision = Literal["float32", "bf16", "fp16"]


def check_precision(precision: str) -> None:
    """Raise InputError for a precision that is not known."""
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise InputError(f"unknown precision '{precision}'; known: {known}")
