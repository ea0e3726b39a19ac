"""Shows rates, differences and p-values in words, with no more digits than mean something."""


def points(difference: float) -> str:
    """Returns a difference of two rates in percentage points."""
    return f"{100 * difference:.1f} points"


def change(difference: float) -> str:
    """Returns a difference of two rates in percentage points, with its sign and without a unit."""
    return f"{100 * difference:+.1f}"


def percent(rate: float) -> str:
    """Returns a rate in percent: `95%`, `97.5%`."""
    return f"{100 * rate:.4g}%"


def p_value(value: float) -> str:
    """Returns a p-value with three significant digits, a very small one as what it is below."""
    return f"{value:.3g}" if value >= 0.0001 else "<0.0001"


def p_equals(value: float) -> str:
    """Returns a p-value as a sentence has it: `p = 0.031`, `p < 0.0001`."""
    shown = p_value(value)
    return f"p < {shown[1:]}" if shown.startswith("<") else f"p = {shown}"
