"""Measures what the harness itself costs (`make bench-matrix`, `make bench-overhead`), and how fast rows are played.

Each module is a program. Campaigns and policies are made in `tests/campaigns.py` and `fixtures/`.
"""

import sys
from pathlib import Path

sys.path.append(
    str(Path(__file__).resolve().parent.parent / "tests")
)  # for `campaigns`, which makes campaigns for tests too
