"""What a slot's process finds ready when it is forked from its builder process."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.simulator, pytest.mark.slow, pytest.mark.usefixtures("libero"), pytest.mark.timeout(600)]

# A process of its own, in which nothing else has compiled or loaded what a reset needs. Blind graphics draw nothing.
PROGRAM = """
import json, sys
from types import SimpleNamespace
import mujoco, numpy as np
from lerobot.envs.configs import LiberoEnv
from tracka.engines.resident import graphics
from tracka.engines.resident.episode import Episode
from tracka.engines.resident.settings import ResidentSettings
from tracka.engines.resident.simulation import Simulation
from tracka.engines.resident.simulator import Simulator

class Blind:
    offscreen = True

    def __init__(self, sim, device_id):
        self.vopt = mujoco.MjvOption()
        sim.add_render_context(self)

    def render(self, *_, **__):
        pass

    def read_pixels(self, width, height, **_):
        return np.zeros((height, width, 3), np.uint8)

settings = {"observation_height": 64, "observation_width": 64}
simulation = Simulation(SimpleNamespace(env=LiberoEnv(task="libero_goal", **settings), resident=ResidentSettings()))
episode = Episode("libero_goal", 7, 3, 10, 2)
if sys.argv[1] == "rehearsed":
    simulator = simulation.make(episode)
else:
    simulator = Simulator(simulation.plain(*episode.task), simulation.speedups, opens_graphics=False)
graphics.open_graphics(simulator._inner, Blind)
events = []
sys.addaudithook(lambda event, values: events.append(event) if event in ("open", "compile", "import") else None)
states = []
for _ in range(2):
    simulator.reset(episode.seed, episode.init_state, episode.ordinal)
    states.append(simulator.state().tobytes().hex())
print(json.dumps([len(events), states]))
"""


def first_resets(kind: str) -> tuple[int, list[str]]:
    """Returns how many files and modules the first two resets of a simulator load, and the states that they leave."""
    command = [sys.executable, "-c", PROGRAM, kind]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    loaded, states = json.loads(ended.stdout.splitlines()[-1])
    return loaded, states


def test_the_first_reset_of_a_forked_slot_loads_and_compiles_nothing_and_begins_as_without_a_rehearsal() -> None:
    loaded, states = first_resets("rehearsed")
    loaded_without, states_without = first_resets("not")
    assert loaded == 0 and loaded_without > 0
    assert len({*states, *states_without}) == 1
