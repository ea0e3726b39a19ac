"""Runs lerobot-eval with a witness: each reset of a LIBERO environment is noted in $TRACKA_SPY before it happens."""

import json
import os
from pathlib import Path
from typing import Any

from lerobot.envs.libero import LiberoEnv
from lerobot.scripts.lerobot_eval import main

real_reset = LiberoEnv.reset


def reset(self: LiberoEnv, seed: int | None = None, **kwargs: Any) -> Any:
    """Notes environment slot, seed and init state, then resets the environment as lerobot does."""
    note = {"slot": self.episode_index, "seed": seed, "init_state": self.init_state_id}
    with Path(os.environ["TRACKA_SPY"]).open("a") as file:
        file.write(json.dumps(note) + "\n")
    return real_reset(self, seed=seed, **kwargs)


LiberoEnv.reset = reset

if __name__ == "__main__":
    main()
