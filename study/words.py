"""Counted things in English."""


def counted(number: float, noun: str) -> str:
    """`number` and `noun` in its number: 1 trial, 20 trials, 0.125 epochs."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:.3g}"
    return f"{shown} {noun}" if shown == "1" else f"{shown} {noun}s"
