"""What the harness itself costs, measured: `make bench-matrix` and `make bench-overhead`."""

import sys
from pathlib import Path

sys.path.append(
    str(Path(__file__).resolve().parent.parent / "tests")
)  # for `campaigns`, which makes them for tests too
