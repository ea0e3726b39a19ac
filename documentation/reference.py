"""The pages of reference that follow from the code: `python -m documentation.reference` writes them into docs/.

They are committed, since a reader of the repository wants them too; a test says when one is not today's.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from documentation import artifacts, commands, exit_codes, reasons, settings
from documentation.links import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES: Mapping[str, Callable[[], str]] = {
    "artifacts.md": artifacts.page,
    "campaign-toml.md": settings.page,
    "commands.md": commands.page,
    "exit-codes.md": exit_codes.page,
    "reasons.md": reasons.page,
}


def write(folder: Path = DOCS) -> None:
    """Writes the pages into `folder`."""
    for name, page in PAGES.items():
        (folder / name).write_text(page())


if __name__ == "__main__":
    write()
