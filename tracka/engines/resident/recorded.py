"""lerobot's LIBERO environment with hashes of its simulation, for records of what lerobot-eval plays.

The class has a module of its own, since environments in other processes import their class by its name.
"""

from typing import Any

import numpy as np
from lerobot.envs.libero import LiberoEnv

from .episode import digest


class RecordedEnv(LiberoEnv):  # type: ignore[misc]
    """A LiberoEnv that also hashes its simulation's state, and changes nothing in the episodes that it plays.

    `beginning` says how the current episode began, with the keys of episodes.jsonl.
    """

    resets = 0
    beginning: dict[str, Any]

    def reset(self, *args: Any, **kwargs: Any) -> Any:
        """Resets as LiberoEnv does, keeps in `beginning` how the episode begins, and returns what LiberoEnv does."""
        if self._env is None:
            self.resets = 0  # a closed environment is built anew
        begins = {"init_state": self.init_state_id, "reset_ordinal": self.resets}
        result = super().reset(*args, **kwargs)
        self.resets += 1
        self.beginning = begins | {"first_state_sha": self.state_sha()}
        return result

    def state_sha(self) -> str:
        """Returns the SHA-256 of the simulation's time, positions and velocities."""
        data = self._env.env.sim.data._data
        return digest(np.concatenate([[data.time], data.qpos, data.qvel]))
