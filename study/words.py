"""Numbers in English."""

from collections.abc import Iterable


def counted(number: float, noun: str) -> str:
    """`number` and `noun` in its number: 1 trial, 20 trials, 0.125 epochs."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:.3g}"
    return f"{shown} {noun}" if shown == "1" else f"{shown} {noun}s"


def shown(value: object) -> str:
    """A value of a searched field."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers as text: 0-3,5."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def numbers_of(text: str) -> list[int]:
    """The numbers that `ranges` told."""
    ends = [part.split("-") for part in text.split(",") if part]
    return [number for each in ends for number in range(int(each[0]), int(each[-1]) + 1)]
