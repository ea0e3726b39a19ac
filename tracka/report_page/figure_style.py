"""Gives all figures one look, and writes them so that the same facts give the same bytes.

A figure has no title, since a paper gives it a caption; its colours are those of report.html, which colour-blind people
can tell apart, and what a colour says a shape or a hatch says too. Text is drawn as it is, without TeX.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core import escaping, files

GOOD, BAD, OPEN, TEXT, LINE = "#0a5a9c", "#a63f00", "#5b5f69", "#1b1f27", "#c3c8d1"
WIDTH = 6.9  # inches: both columns of a paper
DPI = 200
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.edgecolor": OPEN,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": TEXT,
    "text.parse_math": False,
    "svg.hashsalt": "tracka",
    "svg.fonttype": "path",
}
UNITS = ((2 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "hours"), (120.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
_METADATA: Mapping[str, Mapping[str, str | None]] = {
    "svg": {"Date": None, "Creator": "Track A"},
    "png": {"Software": "Track A"},
}


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """Gives the figures that are drawn and saved in this block our look, whatever the user has set for others."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def new(height: float, rows: int = 1, ratios: Sequence[float] | None = None) -> tuple[Any, Any]:
    """Returns a figure of `height` inches, and an array of axes below one another that share x."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)
    return figure, axes[:, 0]


def shown(text: str, most: int = 48) -> str:
    """Returns a text as a figure shows it: plain, on one line, and short."""
    line = escaping.line(text)
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def unit(seconds: float) -> tuple[float, str]:
    """Returns the seconds of the unit in which so long a time is shown, and its name."""
    return next((size, name) for least, size, name in UNITS if seconds >= least)


def legend(figure: Any, handles: Sequence[Any]) -> None:
    """Puts the legend below the axes."""
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), fontsize=7.5)


def save(figure: Any, path: Path, mark: str) -> None:
    """Writes a figure in the format that the name ends with. `mark` stands in the file, so that its age can be told."""
    place, temporary = path.suffix[1:], path.with_name(f".{path.name}")
    files.make_folder(path.parent)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a letter that the font does not have
        figure.savefig(temporary, format=place, dpi=DPI, metadata={**_METADATA[place], "Description": mark})
    temporary.replace(path)
