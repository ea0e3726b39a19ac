"""The recorded demonstrations, the page about them, and the expert that records them."""

import json
from collections import Counter
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from campaigns import REPOSITORY

from fixtures.demonstrations import __main__ as program
from fixtures.demonstrations import page, store
from fixtures.demonstrations.store import Demonstration

SUITES = {suite: store.load(suite) for suite in store.SUITES}
EVERY = [(suite, one) for suite, stored in SUITES.items() for one in stored.values()]
MAX_STEPS = {"libero_spatial": 280, "libero_object": 280, "libero_goal": 300, "libero_10": 520}  # lerobot's


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the recorded files."""
    monkeypatch.setattr(store, "FOLDER", tmp_path / "data")
    return tmp_path / "data"


def lines_of(suite: str) -> list[dict]:
    return [json.loads(line) for line in store.path_of(suite).read_text().splitlines()]


# files


@pytest.mark.parametrize("suite", store.SUITES)
def test_the_first_line_names_the_suite_and_the_versions_that_are_installed(suite: str) -> None:
    head = lines_of(suite)[0]
    assert (head["format"], head["suite"], head["versions"]["mujoco"]) == (1, suite, "3.3.7")
    assert head["versions"] == {package: version(package) for package in store.PACKAGES}


@pytest.mark.parametrize("suite", store.SUITES)
def test_each_episode_has_one_line_and_they_are_sorted(suite: str) -> None:
    keys = [(line["task"], line["init_state"]) for line in lines_of(suite)[1:]]
    assert keys == sorted(set(keys)) == sorted(SUITES[suite])


@pytest.mark.parametrize("suite", store.SUITES)
def test_the_fields_of_each_demonstration_are_in_their_range(suite: str) -> None:
    for key, one in SUITES[suite].items():
        assert one.task in range(10) and one.init_state in range(50) and one.variant in range(6), key
        assert (one.seed, one.ordinal) == (1000 + one.init_state, one.init_state), key
        assert 0 < one.success_step <= min(len(one.actions), MAX_STEPS[suite]), key
        assert len(one.actions) <= one.success_step + 10 and 0 <= one.steady <= 1, key
        assert len(bytes.fromhex(one.end)) == 8 and one.name, key


@pytest.mark.parametrize("suite", store.SUITES)
def test_actions_are_the_bytes_that_the_environment_takes_as_fractions(suite: str) -> None:
    for key, one in SUITES[suite].items():
        floats = one.floats()
        assert (one.actions.dtype, floats.dtype, floats.shape) == (np.int8, np.float32, (len(one.actions), 7)), key
        assert np.abs(floats).max() <= 1 and set(np.abs(floats[:, 6])) == {1.0}, key
        assert np.array_equal(np.rint(floats * 127), one.actions), key


@pytest.mark.parametrize("suite", store.SUITES)
def test_each_demonstration_has_its_first_look(suite: str) -> None:
    for key, one in SUITES[suite].items():
        assert (len(one.state), len(one.thumbnail)) == (8, 3 * 16 * 16), key
        assert one.state == tuple(map(float, np.float32(one.state))), key  # not rounded
        assert len(set(one.thumbnail)) > 20, key  # not a blank picture


def test_no_two_demonstrations_start_or_end_alike() -> None:
    for field in ("state", "thumbnail", "end"):
        most = Counter(getattr(one, field) for _, one in EVERY).most_common(1)
        assert most[0][1] == 1, (field, most)


def test_the_suites_are_covered_as_far_as_campaigns_rely_on() -> None:
    assert set(SUITES["libero_object"]) == {(task, state) for task in range(10) for state in range(10)}
    for suite, stored in SUITES.items():
        assert len({task for task, _ in stored}) >= 2, suite
        for task in {task for task, _ in stored}:
            names = {one.name for one in stored.values() if one.task == task}
            assert len(names) == 1, (suite, task, names)


# store


@pytest.mark.parametrize("suite", store.SUITES)
def test_what_is_loaded_and_saved_again_is_the_same_file(suite: str, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as original:
        original.setattr(store, "FOLDER", REPOSITORY / "fixtures" / "demonstrations" / "data")
        before, loaded = store.path_of(suite).read_bytes(), store.load(suite)
    store.save(suite, dict(reversed(loaded.items())))
    assert (folder / f"{suite}.jsonl").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == [f"{suite}.jsonl"]


def demonstration(**changes: object) -> Demonstration:
    actions = np.array([[-127, -1, 0, 1, 127, 64, -127], [0, 0, 0, 0, 0, 0, 127]], np.int8)
    made = Demonstration(3, "put_it_there", 4, 1004, 4, 0, 2, 1.0, "0" * 16, actions)
    return replace(made, **changes)


@pytest.mark.parametrize(
    "looked", [{}, {"state": (0.1,) * 8, "thumbnail": bytes(range(256)) * 3}], ids=["blind", "seen"]
)
def test_a_demonstration_comes_back_as_it_was_saved(folder: Path, looked: dict[str, object]) -> None:
    one = demonstration(**looked)
    store.save("libero_goal", {one.key: one})
    again = store.load("libero_goal")[3, 4]
    assert np.array_equal(again.actions, one.actions)
    assert {**asdict(again), "actions": 0} == {**asdict(one), "actions": 0}


def test_a_suite_without_a_file_has_no_demonstrations(folder: Path) -> None:
    assert store.load("libero_goal") == {}


def test_a_file_of_another_format_is_refused_by_its_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save("libero_goal", {})
    monkeypatch.setattr(store, "FORMAT", 2)
    with pytest.raises(ValueError, match=r"libero_goal\.jsonl does not have format 2"):
        store.load("libero_goal")


@pytest.mark.parametrize(
    ("text", "meant"), [("7", [7]), ("0,3-5", [0, 3, 4, 5]), ("2-2", [2]), ("5,1", [5, 1]), ("3-1", [])]
)
def test_numbers_are_given_singly_and_as_ranges(text: str, meant: list[int]) -> None:
    assert store.numbers(text) == meant


@pytest.mark.usefixtures("libero", "folder")
@pytest.mark.parametrize("anew", [False, True])
def test_there_is_nothing_to_look_at_where_nothing_is_stored(anew: bool) -> None:
    from fixtures.demonstrations import look

    said: list[str] = []
    look.add("libero_goal", [3, 5], anew, said.append)
    assert said == [] and store.load("libero_goal") == {}


# the page


@pytest.mark.usefixtures("libero")
def test_the_page_agrees_with_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "demonstrations.md")
    monkeypatch.setattr("sys.argv", ["demonstrations", "page"])
    assert program.main() == 0
    assert (tmp_path / "demonstrations.md").read_text() == (REPOSITORY / "docs" / "demonstrations.md").read_text()


@pytest.mark.usefixtures("libero")
@pytest.mark.parametrize("suite", store.SUITES)
def test_a_demonstrations_name_is_that_of_its_task_in_the_benchmark(suite: str) -> None:
    from lerobot.envs.libero import _get_suite

    names = [task.name for task in _get_suite(suite).tasks]
    assert {one.name for one in SUITES[suite].values() if one.name != names[one.task]} == set()


def test_what_is_missing_is_explained_on_the_page() -> None:
    for suite, stored in SUITES.items():
        solved = Counter(task for task, _ in stored)
        gaps = {(suite, task) for task in range(10) if solved[task] < 10}
        assert gaps == {key for key in page.REASONS if key[0] == suite}


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([4], "4"), ([0, 1, 2, 3, 5], "0-3, 5"), ([7, 0, 8], "0, 7-8")]
)
def test_init_states_are_written_as_ranges(numbers: list[int], text: str) -> None:
    assert page.ranges(numbers) == text


# the expert's geometry, without a simulation


class Hand:
    """Of a scene only what a movement reads: a hand over the table, pointing down, and the robot's base."""

    def __init__(self, position: tuple[float, float, float]) -> None:
        from fixtures.demonstrations import skill

        self.position, self.rotation = np.array(position), skill.downward(np.pi / 2)
        self.data = SimpleNamespace(body=lambda name: SimpleNamespace(xpos=np.zeros(3)))

    def hand(self) -> tuple[np.ndarray, np.ndarray]:
        return self.position, self.rotation

    def stretch(self, point: np.ndarray) -> float:
        return float(np.linalg.norm(point))


@pytest.mark.usefixtures("libero")
def test_a_box_is_filled_to_its_faces_with_points_no_farther_apart_than_asked() -> None:
    from fixtures.demonstrations.scene import fill

    points = fill(np.array([0.010, 0.004, 0.001]))
    assert points.min(axis=0).tolist() == [-0.010, -0.004, -0.001]
    assert points.max(axis=0).tolist() == [0.010, 0.004, 0.001]
    for axis in range(3):
        assert np.diff(np.unique(points[:, axis])).max() <= 0.005
    assert len(np.unique(points, axis=0)) == len(points)


@pytest.mark.usefixtures("libero")
@pytest.mark.parametrize("fingers", [-127, 127])
@pytest.mark.parametrize("speed", [1.0, 0.5])
def test_an_action_points_to_its_goal_within_its_bounds(speed: float, fingers: int) -> None:
    from fixtures.demonstrations import skill

    scene = Hand((0.3, 0.0, 0.3))
    goal, turned = np.array([0.6, 0.0, 0.1]), skill.downward(0.0)
    action = skill.toward(scene, goal, turned, fingers, speed)
    most = round(127 * speed)
    assert action.dtype == np.int8 and action.shape == (7,)
    assert action[:3].tolist() == [most, 0, -most] and action[6] == fingers
    assert action[3:6].tolist() == [0, 0, -64]  # a quarter turn back about z, at no more than half of a full turn
    assert np.array_equal(skill.numbers(action) * np.float32(127), action)


@pytest.mark.usefixtures("libero")
def test_an_action_for_where_the_hand_is_moves_nothing() -> None:
    from fixtures.demonstrations import skill

    scene = Hand((0.4, 0.1, 0.2))
    assert skill.toward(scene, *scene.hand(), skill.OPEN).tolist() == [0] * 6 + [-127]


@pytest.mark.usefixtures("libero")
def test_a_goal_out_of_reach_is_drawn_nearer_at_its_height() -> None:
    from fixtures.demonstrations import skill

    scene = Hand((0.3, 0.0, 0.3))
    near, far = np.array([0.5, 0.2, 0.1]), np.array([0.9, 0.0, 0.1])
    assert np.array_equal(skill.within_reach(scene, scene.position, near), near)
    drawn = skill.within_reach(scene, scene.position, far)
    assert scene.stretch(drawn) < skill.REACH and drawn[2] == far[2] and drawn[0] > 0.6
    assert np.array_equal(skill.within_reach(scene, scene.position, 3 * far), scene.position)


@pytest.mark.usefixtures("libero")
def test_open_fingers_fit_around_a_bar_and_not_around_a_broad_box_or_beside_a_wall() -> None:
    from fixtures.demonstrations import grasp, scene

    bar = scene.fill(np.array([0.01, 0.05, 0.02]))
    broad = scene.fill(np.array([0.05, 0.05, 0.02]))
    wall = scene.fill(np.array([0.01, 0.05, 0.06])) + np.array([0.055, 0.0, 0.04])
    alone = np.zeros((0, 3))

    def held(target: np.ndarray, around: np.ndarray) -> list[grasp.Grasp]:
        return grasp.at_angle(target, around, np.zeros(3), 0.0, grasp.PALM_HALVES[-1])

    best = min(held(bar, alone), key=lambda found: found.cost)
    assert best.point[:2] == pytest.approx([0.0, 0.0], abs=0.004) and best.width == pytest.approx(0.02, abs=1e-6)
    assert -0.02 < best.point[2] < 0.02
    assert held(broad, alone) == held(bar, wall) == []


@pytest.mark.usefixtures("libero")
def test_of_many_holds_the_best_that_lie_apart_are_kept_in_order() -> None:
    from fixtures.demonstrations.grasp import Grasp, spread

    places = ((0.0, 0.0), (0.01, 0.0), (0.01, 0.5), (0.03, 0.0), (0.06, 0.0))
    ranked = [Grasp(np.array([x, 0.0, 0.0]), angle, 0.02, float(rank)) for rank, (x, angle) in enumerate(places)]
    assert [one.cost for one in spread(ranked, 8)] == [0, 2, 3, 4]
    assert [one.cost for one in spread(ranked, 2)] == [0, 2]


# the simulator


@pytest.mark.slow  # test_one_command_records_verifies_and_writes_the_page does the same for a task of fewer steps
@pytest.mark.simulator
@pytest.mark.usefixtures("libero", "folder")
def test_the_expert_records_the_stored_actions_again_and_they_replay_to_the_stored_step() -> None:
    from fixtures.demonstrations.record import record
    from fixtures.demonstrations.verify import blank_cameras, verify_task

    said: list[str] = []
    record("libero_object", [0], [0], False, said.append)
    fresh, stored = store.load("libero_object")[0, 0], SUITES["libero_object"][0, 0]
    assert fresh.actions.tobytes() == stored.actions.tobytes(), said
    assert (fresh.success_step, fresh.variant, fresh.steady) == (stored.success_step, stored.variant, stored.steady)
    with blank_cameras():
        wrong = verify_task("libero_object", 0, [fresh], batch=1, seed=1000, say=said.append)
    assert wrong == [] and f"ok at step {stored.success_step}" in said[-1]


# the program


def run_program(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["demonstrations", *words])
    return program.main()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("verify", "--batch", "0"), "not a whole number above 0"),
        (("verify", "--batch", "five"), "not a whole number above 0"),
        (("verify", "--tasks", "10"), "numbers from 0 to 9"),
        (("record", "--tasks", "5-3"), "numbers from 0 to 9"),
        (("record", "--tasks", "x"), "does not look like 0,3-5"),
        (("regenerate", "--init-states", "50"), "numbers from 0 to 49"),
        (("rewind",), "invalid choice: 'rewind'"),
        ((), "the following arguments are required: action"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_program(monkeypatch, *words)
    assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.usefixtures("folder", "libero")
def test_what_is_asked_for_and_not_stored_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_program(monkeypatch, "verify", "--suite", "libero_object", "--tasks", "0,7", "--init-states", "2,4") == 1
    said = capsys.readouterr().out
    assert "libero_object 0: no demonstration starts from init state 2, 4\nlibero_object 7: no dem" in said
    assert said.endswith("0 demonstrations replayed, 2 wrong\n")


def test_what_the_page_gives_a_reason_for_may_be_missing() -> None:
    for suite in store.SUITES:
        assert list(program.missing_demonstrations(program.parser().parse_args(["verify"]), suite)) == []
    asked = program.parser().parse_args(["verify", "--tasks", "3,5", "--init-states", "0"])
    assert list(program.missing_demonstrations(asked, "libero_goal")) == []


@pytest.mark.simulator
@pytest.mark.slow
@pytest.mark.usefixtures("libero", "folder")
def test_one_command_records_verifies_and_writes_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    words = ("--suite", "libero_goal", "--tasks", "7", "--init-states", "0")
    assert run_program(monkeypatch, "regenerate", *words) == 0
    assert "1 demonstrations replayed, 0 wrong" in capsys.readouterr().out
    assert store.load("libero_goal")[7, 0].actions.tobytes() == SUITES["libero_goal"][7, 0].actions.tobytes()
    assert "| 7 | turn_on_the_stove | 1 | 0 |" in (tmp_path / "page.md").read_text()
