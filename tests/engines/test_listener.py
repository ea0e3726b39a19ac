"""Recorded rows of lerobot-eval: what is started, what is kept of each episode, and what counts as evidence."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from campaigns import Made

from tracka.campaign import campaign
from tracka.campaign.campaign import Campaign
from tracka.core import files
from tracka.core.artifacts import Result
from tracka.core.errors import UsageError
from tracka.engines import recorded_arrays
from tracka.gates import validate
from tracka.runs import run
from tracka.runs.plan import Host

ROW = "long_b1_e6"
RECORDED = f"[rows.{ROW}]\nepisode_length = 6\nrecord_actions = true"  # as the stand-in's failures last


def without_own_program(made: Made) -> None:
    """Lets the campaign's rows run lerobot-eval, whose rollout() is then the stand-in's."""
    lines = made.layout.settings.read_text().splitlines()
    made.layout.settings.write_text("\n".join(line for line in lines if not line.startswith("executable")) + "\n")


def host_of(made: Made) -> Host:
    program = str(Path(sys.executable).parent / "lerobot-eval")
    return replace(run.load_host(made.layout), executable=(program,))


@dataclass(frozen=True)
class Recorded:
    """A row that was recorded."""

    spec: Campaign
    result: Result
    host: Host

    @property
    def output(self) -> Path:
        return self.spec.layout.run(ROW).attempt(1).output

    def array(self, kind: str, episode: int) -> Path:
        return recorded_arrays.path(self.output, kind, "libero_object", 0, episode)

    def evidence(self) -> list[str]:
        return [str(each) for each in validate.row_contract_findings(self.spec, self.spec.row(ROW), "evidence")]


@pytest.fixture
def recorded(ready: Made) -> Recorded:
    without_own_program(ready)
    ready.configure(RECORDED)
    spec, host = campaign.load(ready.root), host_of(ready)
    return Recorded(spec, run.run_row(spec, spec.row(ROW), host), host)


def test_a_recorded_row_keeps_each_episodes_actions_and_states_and_its_evidence_is_sound(recorded: Recorded) -> None:
    assert recorded.result["status"] == "pass", recorded.result["error_message"]
    lines = files.read_lines(recorded.output / "episodes.jsonl")
    told = [(line["episode"], line["seed"], line["reset_ordinal"], line["success"], line["steps"]) for line in lines]
    assert told[:3] == [(0, 7, 0, False, 6), (1, 8, 1, True, 4), (2, 9, 2, True, 5)]
    states = recorded_arrays.read(recorded.array("states", 1), lines[1]["states_sha"])
    assert states.shape == (4, 9) and np.array_equal(states[:, 0], [0, 1, 2, 3])  # before each of the four steps
    assert recorded_arrays.read(recorded.array("actions", 1), lines[1]["actions_sha"]).shape == (4, 7)
    records = files.read_lines(recorded.spec.layout.run(ROW).episodes)
    assert [record["actions_sha"] for record in records] == [line["actions_sha"] for line in lines]
    assert recorded.evidence() == []


def test_the_manifest_has_lerobot_evals_command_and_names_the_listener_that_starts_it(recorded: Recorded) -> None:
    manifest = files.read_json(recorded.spec.layout.run(ROW).manifest)
    assert manifest["command"][0].endswith("/lerobot-eval") and manifest["listener"] == "tracka.engines.listener"
    plan = run.plan_row(recorded.spec, recorded.spec.row(ROW), recorded.host)
    started = plan.started_words(manifest["command"])
    assert manifest["listener"] in started and started[-1] == manifest["command"][-1]
    flags = [word for word in started if word.startswith("--")]
    assert flags == manifest["command"][1:]


def test_a_row_without_record_has_the_same_row_hash_and_starts_the_command_as_it_stands(recorded: Recorded) -> None:
    spec = replace(recorded.spec, row_tables={ROW: {"episode_length": 6}})
    plain = run.plan_row(spec, spec.row(ROW), recorded.host)
    manifest = files.read_json(recorded.spec.layout.run(ROW).manifest)
    assert plain.row_hash == manifest["row_hash"]
    assert plain.started_words(manifest["command"]) == manifest["command"]


def test_actions_and_states_that_are_not_those_of_their_line_are_refused(recorded: Recorded) -> None:
    for kind in recorded_arrays.KINDS:
        path = recorded.array(kind, 2)
        content = path.read_bytes()
        np.save(path, np.load(path) + 1)
        assert any(f"these are not the {kind}" in finding for finding in recorded.evidence())
        path.unlink()
        assert any(f"the {kind} cannot be read" in finding for finding in recorded.evidence())
        path.write_bytes(content)
    assert recorded.evidence() == []


def test_an_episode_without_a_record_is_refused_where_the_row_was_recorded(recorded: Recorded) -> None:
    path = recorded.output / "episodes.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(True)[:-1]))
    assert any("1 of 6 episodes have no record, first episode 5 of task 0" in each for each in recorded.evidence())


def test_a_campaign_with_a_program_of_its_own_cannot_be_recorded(made: Made) -> None:
    made.configure(RECORDED)
    with pytest.raises(UsageError, match=f"rows {ROW}: only lerobot's own lerobot-eval can be recorded"):
        campaign.load(made.root)
