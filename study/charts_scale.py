"""How far the axes of a panel reach, and where some have ticks."""

import math

from study.charts import Bars, Boxes, Line, Mark, Panel, Points, Values

SHORT_LOG, VERY_SHORT_LOG = 100.0, 4.0  # from end to end of an axis
FEW_COUNTS = 6  # from end to end, up to which each has a tick
FEW_DOUBLED = 3
FEW_DIGITS = (1, 2, 5)
MANY_DIGITS = (1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)


def ends(panel: Panel, along_x: bool) -> tuple[float, float] | None:
    """The least and the greatest number along an axis, above 0 where it is logarithmic.

    Of what is drawn, or of the range that the panel sets; None where there is no number.
    """
    limits, is_log = (panel.x_range, panel.log_x) if along_x else (panel.y_range, panel.log_y)
    if limits is not None:
        return limits
    found = [
        value
        for mark in panel.marks
        for values in _along(mark, along_x)
        for value in values
        if value is not None and math.isfinite(value) and (value > 0.0 or not is_log)
    ]
    return (min(found), max(found)) if found else None


def counts_along_x(panel: Panel) -> bool:
    """Whether all that stands along x are whole numbers, as epochs and trials are."""
    found = [value for mark in panel.marks for values in _along(mark, True) for value in values]
    return (
        bool(found)
        and not panel.log_x
        and all(v is not None and float(v).is_integer() for v in found)
    )


def short_log_ticks(panel: Panel, along_x: bool) -> list[float] | None:
    """Ticks of a logarithmic axis of less than two powers of ten; None for a longer one.

    An axis along which only powers of two stand, as batch sizes, has them for ticks.
    """
    doubled = {value for mark in panel.marks for values in _along(mark, True) for value in values}
    if along_x and len(doubled) >= FEW_DOUBLED and all(map(_is_power_of_two, doubled)):
        return sorted(float(value) for value in doubled if value is not None)
    found = ends(panel, along_x)
    if found is None or found[0] <= 0.0 or found[1] >= SHORT_LOG * found[0]:
        return None
    digits = FEW_DIGITS if found[1] >= VERY_SHORT_LOG * found[0] else MANY_DIGITS
    powers = range(math.floor(math.log10(found[0])) - 1, math.ceil(math.log10(found[1])) + 2)
    return [float(f"{digit}e{power}") for power in powers for digit in digits]


def _is_power_of_two(value: float | None) -> bool:
    return value is not None and value >= 1.0 and math.frexp(value)[0] == 0.5


def _along(mark: Mark, along_x: bool) -> tuple[Values, ...]:
    """The numbers of `mark` along an axis."""
    match mark:
        case Line():
            return (mark.x,) if along_x else (mark.y, mark.low or (), mark.high or ())
        case Points():
            return (mark.x,) if along_x else (mark.y,)
        case Bars():
            return () if along_x else (mark.values, mark.low or (), mark.high or ())
        case Boxes():
            return () if along_x else mark.values
        case _:
            return ()
