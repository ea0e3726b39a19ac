"""The facts about lerobot and LIBERO are those of the installed packages, by their sources; nothing is imported."""

import ast
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from tracka.core import lerobot_facts as facts


def package(name: str) -> Path:
    spec = find_spec(name)
    assert spec and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


LEROBOT, LIBERO = package("lerobot"), package("libero") / "libero"


def constants(path: Path, scope: str = "") -> dict[str, object]:
    """The literal values of a module's names, or of those of a class in it."""
    body = ast.parse(path.read_text()).body
    if scope:
        body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == scope)
    found: dict[str, object] = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            name, value = node.target.id, node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
        else:
            continue
        try:
            found[name] = ast.literal_eval(value)
        except ValueError:  # an expression
            continue
    return found


def test_the_pinned_lerobot_is_installed() -> None:
    assert version("lerobot") == facts.LEROBOT_VERSION


def test_episodes_end_after_lerobots_steps() -> None:
    assert constants(LEROBOT / "envs" / "libero.py")["TASK_SUITE_MAX_STEPS"] == facts.EPISODE_STEPS


@pytest.mark.parametrize("suite", facts.SUITE_TASKS)
def test_a_suite_has_a_definition_and_init_states_for_each_of_its_tasks(suite: str) -> None:
    definitions = {path.stem for path in (LIBERO / "bddl_files" / suite).glob("*.bddl")}
    states = {path.stem for path in (LIBERO / "init_files" / suite).glob("*.pruned_init")}
    assert len(definitions) == facts.SUITE_TASKS[suite] and definitions == states


def test_rate_and_size_of_frames_are_those_of_lerobots_environment() -> None:
    found = constants(LEROBOT / "envs" / "configs.py", "LiberoEnv")
    assert (found["fps"], found["observation_height"], found["observation_width"]) == (
        facts.FPS,
        facts.FRAME_SIDE,
        facts.FRAME_SIDE,
    )
    assert found["camera_name"] == ",".join(facts.CAMERAS)


def test_cameras_are_called_as_lerobots_environment_calls_them() -> None:
    source = (LEROBOT / "envs" / "configs.py").read_text()
    for camera, name in facts.CAMERAS.items():
        assert f'self.camera_name_mapping.get("{camera}", "{name}")' in source
    assert facts.WRIST_CAMERA in facts.CAMERAS


def test_the_first_episodes_of_a_task_are_filmed() -> None:
    source = (LEROBOT / "scripts" / "lerobot_eval.py").read_text()
    assert f"max_episodes_rendered = 0 if cfg.eval.recording else {facts.FILMED_EPISODES}\n" in source
