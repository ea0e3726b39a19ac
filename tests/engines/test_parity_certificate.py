"""The resident engine in a campaign: its commands, what its rows' hashes stand for, and when its results are proven."""

from dataclasses import replace
from pathlib import Path

import pytest
from campaigns import Made, fake_checkpoint

from tracka.core import files
from tracka.core.errors import Finding, UsageError
from tracka.engines import parity_certificate
from tracka.engines.comparison import Comparison
from tracka.gates import row_contracts
from tracka.gates.validate import contract_findings
from tracka.runs import parity, run
from tracka.runs.plan import Plan

RUN_ID = "wide_b4_e4"
SAME = parity_certificate.comparison_counts(Comparison(4, 4, 4, 4, (2, 2), 0.0, ()))
PROVEN = {"compared": SAME, "repeated": None, "differing": []}
REFUSED = {
    "compared": parity_certificate.comparison_counts(Comparison(4, 0, 4, 4, (2, 2), 1.9, ())),
    "repeated": SAME,
    "differing": ["libero_object task 0, episode 0: the action differs at step 0, by 1.9"],
}


@pytest.fixture
def resident(ready: Made) -> Made:
    """The usual campaign after phases 1 and 2, with the resident engine."""
    use(ready, "")
    return ready


def use(made: Made, table: str) -> None:
    """Switches to the resident engine with these lines of its table."""
    text = made.layout.settings.read_text().split("[resident]")[0].replace('engine = "resident"\n', "")
    head, tail = text.split("[lerobot_eval]", 1)
    made.layout.settings.write_text(f'{head}engine = "resident"\n\n[lerobot_eval]{tail}\n[resident]\n{table}\n')


def plan(made: Made, run_id: str = RUN_ID) -> Plan:
    spec = made.spec
    return run.plan_row(spec, spec.row(run_id), run.load_host(spec.layout))


def certify(made: Made, proven: bool) -> None:
    """A certificate of all checkpoints, as a parity run would leave it."""
    for row in parity.rows_to_prove(made.spec):
        of = run.plan_row(made.spec, row, run.load_host(made.layout))
        value = parity.certificate(of, PROVEN if proven else REFUSED, {}, {}, {})
        files.write_json(parity_certificate.certificate_path(made.layout, of.proof_key), value)


def test_a_row_runs_the_resident_engine_with_lerobot_evals_flags_and_its_own(resident: Made) -> None:
    use(resident, 'slots = 8\nnoise = "reference"\nlazy_rendering = false')
    command = plan(resident).command(resident.layout.run(RUN_ID).attempt(1), "cpu")
    assert "tracka.engines.resident" in command
    assert {"--eval.batch_size=4", "--env.task=libero_object", "--policy.device=cpu"} <= set(command)
    own = [word for word in command if word.startswith("--resident.")]
    assert own == ["--resident.lazy_rendering=false", "--resident.noise=reference", "--resident.slots=8"]


def test_what_decides_outcomes_makes_another_row_and_what_does_not_is_the_same(resident: Made) -> None:
    before = plan(resident).row_hash
    use(resident, "workers = 3\nslots = 8\nvideos = 2")
    assert plan(resident).row_hash == before
    use(resident, 'noise = "reference"')
    assert plan(resident).row_hash != before


def test_the_two_engines_rows_are_not_the_same(ready: Made) -> None:
    before = plan(ready).row_hash
    use(ready, "")
    assert plan(ready).row_hash != before


def test_a_row_of_lerobot_eval_needs_no_proof(ready: Made) -> None:
    assert plan(ready).unproven_reason is None
    assert parity.rows_to_prove(ready.spec) == []
    assert list(contract_findings(ready.spec, "phase3", "parity")) == []


def test_without_a_parity_run_a_row_is_unproven_and_phase_3_says_so(resident: Made) -> None:
    assert "no parity run" in str(plan(resident).unproven_reason)
    findings = list(contract_findings(resident.spec, "phase3", "parity"))
    assert len(findings) == 2
    assert all("no parity run" in each.what and "lerobot-eval" in each.remedy for each in findings)


def test_a_parity_run_proves_all_rows_of_its_checkpoint(resident: Made) -> None:
    certify(resident, proven=True)
    assert plan(resident).unproven_reason is None and plan(resident, "baseline_b1_e2").unproven_reason is None
    assert list(contract_findings(resident.spec, "phase3", "parity")) == []


def test_a_process_that_has_loaded_a_policy_serves_rows_of_any_suite_whose_proofs_are_others(resident: Made) -> None:
    one = plan(resident)
    other = replace(one, row=replace(one.row, task_suite="libero_goal"))
    assert one.proof_key != other.proof_key and one.load_key == other.load_key
    resident.change_weights()
    assert plan(resident).load_key != one.load_key


def test_a_failed_parity_run_proves_nothing_and_is_told_with_its_figures(resident: Made) -> None:
    certify(resident, proven=False)
    assert "the parity run failed: 0 of 4 episodes are the same to the bit" in str(plan(resident).unproven_reason)


@pytest.mark.parametrize("change", ["weights", "settings", "host"])
def test_another_checkpoint_setting_or_host_asks_for_a_new_proof(resident: Made, change: str) -> None:
    certify(resident, proven=True)
    if change == "weights":
        resident.change_weights()
    elif change == "settings":
        text = resident.layout.settings.read_text()
        resident.layout.settings.write_text(text.replace("[lerobot_eval]", "[lerobot_eval]\nn_action_steps = 3"))
    else:
        path = resident.layout.preflight / "env_snapshot.json"
        snapshot = files.read_json(path)
        snapshot["fingerprints"]["host"] = "0" * 64
        files.write_json(path, snapshot)
    assert "no parity run" in str(plan(resident).unproven_reason)


@pytest.mark.parametrize("change", ["package", "variable", "module"])
def test_a_certificate_holds_for_the_software_that_it_was_made_with(
    resident: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    certify(resident, proven=True)
    loaded = plan(resident).load_key
    if change == "package":
        metadata = tmp_path / "site/tokenizers-99.1.dist-info/METADATA"
        files.write_text(metadata, "Metadata-Version: 2.1\nName: tokenizers\nVersion: 99.1\n")
        monkeypatch.syspath_prepend(tmp_path / "site")
    elif change == "variable":
        monkeypatch.setenv("OMP_NUM_THREADS", "17")
    else:
        files.write_text(tmp_path / "site/transformers/__init__.py", "")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    assert "no parity run" in str(plan(resident).unproven_reason)
    assert plan(resident).load_key != loaded  # nor may a process that has the policy loaded go on


def test_a_verdict_that_was_written_by_hand_proves_nothing(resident: Made) -> None:
    certify(resident, proven=False)
    path = parity_certificate.certificate_path(resident.layout, plan(resident).proof_key)
    files.write_json(path, files.read_json(path) | {"proven": True, "exact": True, "evidence": "all the same"})
    assert "the parity run failed: 0 of 4" in str(plan(resident).unproven_reason)
    assert [finding.what for finding in contract_findings(resident.spec, "phase3", "parity")]


def test_each_way_to_ask_a_checkpoint_is_proven_by_one_short_row_the_baseline_first(resident: Made) -> None:
    """A row of one batch is played whole; of a longer one, a batch and one episode more."""
    subjects = [(row.run_id, row.batch_size, row.n_episodes) for row in parity.rows_to_prove(resident.spec)]
    assert subjects == [("baseline_b1_e2", 1, 2), ("wide_b4_e4", 4, 4)]


OTHER_WAYS = {
    "actions a look": "n_action_steps = 3",
    "several tasks": "task_ids = [0, 1, 2]",
    "frames": "observation_height = 128",
}


@pytest.mark.parametrize("line", OTHER_WAYS.values(), ids=OTHER_WAYS)
def test_rows_that_ask_their_checkpoint_otherwise_are_proven_each(resident: Made, line: str) -> None:
    text = resident.layout.settings.read_text()
    resident.layout.settings.write_text(f"{text}\n[rows.long_b1_e6]\n{line}\n")
    ways = ["baseline_b1_e2", "long_b1_e6", "wide_b4_e4"]
    assert sorted(row.run_id for row in parity.rows_to_prove(resident.spec)) == ways
    certify(resident, proven=True)
    assert [plan(resident, name).unproven_reason for name in ways] == [None] * 3


@pytest.mark.parametrize("change", ["batch size", "suite", "tasks", "noise", "code"])
def test_a_proof_of_another_way_to_ask_proves_nothing(
    resident: Made, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    certify(resident, proven=True)
    matrix, settings = resident.layout.matrix, resident.layout.settings
    if change == "batch size":
        matrix.write_text(matrix.read_text().replace("wide_b4_e4,libero_object,4", "wide_b4_e4,libero_object,2"))
    elif change == "suite":
        matrix.write_text(matrix.read_text().replace("wide_b4_e4,libero_object", "wide_b4_e4,libero_goal"))
    elif change == "tasks":
        settings.write_text(f"{settings.read_text()}\n[rows.wide_b4_e4]\ntask_ids = [0, 1]\n")
    elif change == "noise":
        use(resident, 'noise = "reference"')
    else:
        monkeypatch.setattr(parity_certificate, "code_hash", lambda *_: "another")
    assert "no parity run" in str(plan(resident).unproven_reason)


def test_a_retry_with_a_smaller_batch_is_proven_at_that_size_or_not_at_all(resident: Made) -> None:
    certify(resident, proven=True)
    assert plan(resident).unproven_reason is None and plan(resident).retry(2).unproven_reason is not None


def test_a_row_of_fewer_episodes_than_its_batch_proves_no_row_that_fills_it(resident: Made) -> None:
    spec, host = resident.spec, run.load_host(resident.layout)
    few = replace(spec.row("baseline_b1_e2"), batch_size=10)
    full = replace(spec.row("wide_b4_e4"), batch_size=10, n_episodes=50)
    campaign = replace(spec, rows=(few, full))
    assert [(row.run_id, row.n_episodes) for row in parity.rows_to_prove(campaign)] == [
        (few.run_id, 2),
        (full.run_id, 11),
    ]
    keys = {row.run_id: run.plan_row(campaign, row, host).proof_key for row in campaign.rows}
    assert len(set(keys.values())) == 2
    (_, subject) = parity.rows_to_prove(campaign)
    assert run.plan_row(campaign, subject, host).proof_key == keys[full.run_id]


def test_more_episodes_of_a_proof_are_played_in_the_same_batches(resident: Made) -> None:
    spec = resident.spec
    few = replace(spec.row("baseline_b1_e2"), batch_size=10)
    asked = run.plan_row(replace(spec, rows=(few,)), few, run.load_host(resident.layout))
    wider = parity._wide(asked)
    assert wider and (wider.row.n_episodes, wider.batch_size) == (parity.WIDE, 2)
    assert wider.proof_key == asked.proof_key


def gates_of_phase_3(made: Made) -> list[str]:
    listed = made.pytest("--collect-only", "-q", "-m", "phase3").stdout
    return [line.split("::")[1] for line in listed.splitlines() if "::" in line]


def test_each_proof_is_a_gate_of_its_own_which_a_worker_takes_like_a_row(resident: Made) -> None:
    text = resident.layout.settings.read_text()
    resident.layout.settings.write_text(f"{text}\n[rows.long_b1_e6]\nn_action_steps = 3\n")
    gate = "test_the_engine_plays_the_episodes_of_lerobot_eval"
    assert [name for name in gates_of_phase_3(resident) if name.startswith(gate)] == [
        f"{gate}[baseline_b1_e2]",
        f"{gate}[long_b1_e6]",
        f"{gate}[wide_b4_e4]",
    ]


def test_where_lerobot_eval_is_the_engine_there_is_no_gate_of_its_proof(ready: Made) -> None:
    assert not [name for name in gates_of_phase_3(ready) if "the_engine_plays" in name]


def test_a_row_is_proven_by_the_one_that_asks_its_checkpoint_as_it_does(resident: Made) -> None:
    text = resident.layout.settings.read_text()
    resident.layout.settings.write_text(f"{text}\n[rows.wide_b4_e4]\nn_action_steps = 3\n")
    spec = resident.spec
    proving = {row.run_id: parity.proving_row(spec, row) for row in spec.enabled}
    assert {name: row and row.run_id for name, row in proving.items()} == {
        "baseline_b1_e2": "baseline_b1_e2",
        "long_b1_e6": "baseline_b1_e2",
        "wide_b4_e4": "wide_b4_e4",
    }


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("use_async_envs = false", "row wide_b4_e4, key use_async_envs: sync environments"),
        ('flags = { "env.hard_reset" = false }', "key flags: the resident engine does not support env.hard_reset"),
    ],
)
def test_what_the_engine_does_not_obey_is_said_before_anything_runs(resident: Made, line: str, what: str) -> None:
    text = resident.layout.settings.read_text()
    resident.layout.settings.write_text(text.replace("[lerobot_eval]", f"[lerobot_eval]\n{line}"))
    with pytest.raises(UsageError, match=what):
        resident.spec  # noqa: B018
    resident.layout.settings.write_text(resident.layout.settings.read_text().replace('engine = "resident"', ""))
    assert not resident.spec.is_resident


def test_a_result_that_ran_unproven_is_a_warning_which_a_strict_validation_does_not_accept(ready: Made) -> None:
    result = ready.run_row(RUN_ID)
    path = ready.layout.run(RUN_ID).result
    files.write_json(path, result | {"unproven": "no parity run"})
    (finding,) = row_contracts.proven_engine(ready.spec, ready.spec.row(RUN_ID))
    assert finding.warning and "unproven" in finding.what


@pytest.mark.parametrize("table", ['noise = "own"', "slots = 0", "videos = 0", "fast = true"])
def test_a_setting_that_the_engine_does_not_have_is_refused(resident: Made, table: str) -> None:
    use(resident, table)
    with pytest.raises(UsageError, match="resident"):
        resident.spec  # noqa: B018


# a checkpoint that an engine cannot play


@pytest.fixture
def other(resident: Made) -> Made:
    """The campaign with a row of another checkpoint than the baseline's."""
    fake_checkpoint(resident.root / "checkpoints" / "other")
    resident.layout.matrix.write_text(
        resident.layout.matrix.read_text().replace(
            "wide_b4_e4,libero_object,4,4,cpu,7,egl,checkpoints/fake",
            "wide_b4_e4,libero_object,4,4,cpu,7,egl,checkpoints/other",
        )
    )
    return resident


def fail(*_: object) -> None:
    raise UsageError(Finding("stderr.log", "lerobot-eval ended with exit code 1", "Read it"))


def test_another_checkpoint_that_cannot_be_played_is_noted_and_left_to_its_rows(
    other: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "prove", fail)
    spec, host = other.spec, run.load_host(other.layout)
    assert parity.prove_or_note(spec, spec.row(RUN_ID), host)["proven"] is False
    assert "lerobot-eval ended with exit code 1" in str(plan(other).unproven_reason)
    (finding,) = row_contracts.proven_row(spec, spec.row(RUN_ID))
    assert finding.warning and "lerobot-eval ended with exit code 1" in finding.what


def test_the_baselines_checkpoint_must_be_played(other: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "prove", fail)
    spec = other.spec
    with pytest.raises(UsageError, match="ended with exit code 1"):
        parity.prove_or_note(spec, spec.row("baseline_b1_e2"), run.load_host(other.layout))


def test_a_certificate_without_episodes_proves_nothing(other: Made) -> None:
    certify(other, proven=True)
    path = parity_certificate.certificate_path(other.layout, plan(other).proof_key)
    files.write_json(path, files.read_json(path) | {"compared": parity_certificate.comparison_counts(parity.NOTHING)})
    assert plan(other).unproven_reason is not None
