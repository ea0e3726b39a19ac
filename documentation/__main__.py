"""`python -m documentation`: builds the site into reports/site. Every warning of Sphinx is an error."""

import sys
from pathlib import Path

from sphinx.cmd.build import main

from documentation import sources

HERE = Path(__file__).parent


def build(site: Path) -> int:
    """Builds the site into `site`, with its sources beside it, and returns the exit status of Sphinx."""
    folder = site.parent / f"{site.name}-sources"
    sources.write(folder)
    return main(["-W", "--keep-going", "-q", "-b", "html", "-E", "-c", str(HERE), str(folder), str(site)])


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1] if len(sys.argv) > 1 else "reports/site")))
