"""lerobot's LIBERO environment with hashes of its simulation, for the parity gate's recording of lerobot-eval.

The class has a module of its own, since environments in other processes import their class by its name.
"""

from typing import Any

import numpy as np
from lerobot.envs.libero import LiberoEnv

from .episode import digest


class RecordedEnv(LiberoEnv):  # type: ignore[misc]
    """A LiberoEnv that also hashes its simulation's state, and changes nothing in the episodes that it plays."""

    first_state = ""

    def reset(self, *args: Any, **kwargs: Any) -> Any:
        """Resets as LiberoEnv does, keeps the hash of the state in `first_state`, and returns what LiberoEnv does."""
        result = super().reset(*args, **kwargs)
        self.first_state = self.state_sha()
        return result

    def state_sha(self) -> str:
        """Returns the SHA-256 of the simulation's time, positions and velocities."""
        data = self._env.env.sim.data._data
        return digest(np.concatenate([[data.time], data.qpos, data.qvel]))
