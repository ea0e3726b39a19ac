"""lerobot's LIBERO environment, which tells hashes of its simulation; for the reference of the parity gate.

A module of its own, since environments in other processes import their class by its name.
"""

from typing import Any

import numpy as np
from lerobot.envs.libero import LiberoEnv

from .episode import digest


class RecordedEnv(LiberoEnv):  # type: ignore[misc]
    """A LiberoEnv that changes nothing of what it plays."""

    first_state = ""

    def reset(self, *args: Any, **kwargs: Any) -> Any:
        seen = super().reset(*args, **kwargs)
        self.first_state = self.state_sha()
        return seen

    def state_sha(self) -> str:
        """SHA-256 of the simulation's time, positions and velocities."""
        data = self._env.env.sim.data._data
        return digest(np.concatenate([[data.time], data.qpos, data.qvel]))
