"""Resolves repositories again from the hub's cache alone, in the environment of a row, and prints each one's folder.

The one argument is a JSON list with the fields of `hub.DownloadSpec` for each repository. Prints one JSON object a
line, {"folder": ...}, where the folder is null if the repository is not in the cache.
"""

import json
import sys
from typing import Any

from ...checkpoints.hub import DownloadSpec, cached_snapshot


def main(repositories: list[dict[str, Any]]) -> None:
    """Prints the cached folder of each repository in `repositories`, in the same order."""
    for fields in repositories:
        arguments: dict[str, Any] = {
            name: tuple(item) if isinstance(item, list) else item for name, item in fields.items()
        }
        folder = cached_snapshot(DownloadSpec(**arguments))
        print(json.dumps({"folder": str(folder) if folder else None}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
