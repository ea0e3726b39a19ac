"""lerobot-eval itself, with a record of every episode's actions: what the resident engine is compared with.

Usage: python -m tracka.probes.reference FLAGS OF LEROBOT-EVAL
The stock program runs unchanged around its own rollout(); what that returns is written to episodes.jsonl in its output
folder, with the keys that the resident engine writes there.
"""

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

START = time.monotonic()


def main() -> None:
    from lerobot.scripts import lerobot_eval

    real = lerobot_eval.rollout
    played: Counter[int] = Counter()  # LIBERO task -> its episodes so far

    def recording(env: Any, policy: Any, *args: Any, **kwargs: Any) -> Any:
        result = real(env, policy, *args, **kwargs)
        task_id = int(env.call("task_id")[0])
        _write(_output() / "episodes.jsonl", task_id, played[task_id], kwargs["seeds"], result)
        played[task_id] += len(kwargs["seeds"])
        return result

    lerobot_eval.rollout = recording
    lerobot_eval.main()


def _output() -> Path:
    from lerobot.configs.parser import parse_arg

    return Path(str(parse_arg("output_dir")))


def _write(path: Path, task_id: int, first: int, seeds: list[int], result: Any) -> None:
    """Appends the rollout's episodes: actions and success up to the step that ended each."""
    from ..resident.episode import digest

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for slot, seed in enumerate(seeds):
            steps = int(np.argmax(result["done"][slot].numpy())) + 1
            actions = result["action"][slot].numpy()[:steps].astype(np.float32)
            line = {
                "task": task_id,
                "episode": first + slot,
                "seed": seed,
                "success": bool(result["success"][slot][:steps].any()),
                "steps": steps,
                "actions_sha": digest(actions),
                "at_secs": round(time.monotonic() - START, 3),
            }
            file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
