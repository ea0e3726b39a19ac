"""Resolves repositories again from the cache alone, in the environment of a row: prints the folder of each, or nothing.

Its one argument is a JSON list of what is wanted of each repository.
"""

import json
import sys
from typing import Any

from ...checkpoints.hub import Wanted, cached


def main(listed: list[dict[str, Any]]) -> None:
    for words in listed:
        given: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in words.items()}
        found = cached(Wanted(**given))
        print(json.dumps({"folder": str(found) if found else None}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
