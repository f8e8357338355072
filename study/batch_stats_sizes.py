"""Lists of batch sizes as the command line has them."""

from models.errors import InputError


def parse_nbs(text: str | None, sgd_batch: int) -> tuple[int, ...]:
    """Normalisation batch sizes: 2,8,32 or 2,4,…,1024; None: powers of 2 up to the SGD batch.

    Raises InputError.
    """
    if text is None:
        return tuple(2**power for power in range(1, sgd_batch.bit_length()))
    return _expanded(text, "--nbs")


def parse_batches(text: str) -> tuple[int, ...]:
    """Batch sizes of the watched runs; raises InputError."""
    return _expanded(text, "--curve-batches")


def _expanded(text: str, option: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    parts = [part.strip() for part in text.replace("...", "…").split(",")]
    try:
        if "…" not in parts:
            return tuple(int(part) for part in parts)
        first, second, dots, last = parts
        low, step, end = int(first), int(second) / int(first), int(last)
        sizes = [low]
        while dots == "…" and step > 1.0 and sizes[-1] * step <= end:
            sizes.append(round(sizes[-1] * step))
    except (ValueError, ZeroDivisionError):
        sizes = []
    if not sizes or sizes[-1] != end:
        raise InputError(
            f"{option} {text} must be whole numbers with commas between them, as 2,8,32 or "
            "2,4,…,1024, or none"
        )
    return tuple(sizes)
