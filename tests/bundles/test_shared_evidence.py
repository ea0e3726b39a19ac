"""Rows held against each other: what two runs cannot share, and what a host's journal of leases says of them."""

import json
from pathlib import Path

import pytest
from forger import Forger
from stored_campaign import campaign_copy

from tracka.core import files
from tracka.execution import lease
from tracka.runs import shared_evidence

UUID = "GPU-0"
FIRST, SECOND = "object_t34_b1_s23", "object_t5_b2_e3_s42"  # two workers ran them at a time
BASE = "baseline_b1_e2"
FILM = "eval/videos/libero_object_0/eval_episode_{}.mp4"


@pytest.fixture
def forger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forger:
    """A campaign two of whose rows say that they had one GPU, on a host whose locks lie in `locks`."""
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv(lease.LOCKS, str(tmp_path / "locks"))
    forger = Forger(campaign_copy(tmp_path))
    for run_id in (FIRST, SECOND):
        for folder in (forger.attempt(run_id), forger.top(run_id)):
            forger.json(folder.manifest, lambda manifest: manifest.update(gpu_uuid=UUID, gpu_id=0))
    return forger


def found(forger: Forger) -> list[str]:
    return [finding.what for finding in shared_evidence.findings(forger.campaign)]


def span(forger: Forger, run_id: str) -> tuple[float, float]:
    """Returns when a row began and ended."""
    folder = forger.top(run_id)
    begin, end = files.read_json(folder.manifest)["start_time_utc"], files.read_json(folder.result)["end_time_utc"]
    return files.timestamp(begin), files.timestamp(end)


def journal(tmp_path: Path, *notes: tuple[str, float, float]) -> None:
    """Writes the journal of the GPU: label, begin and end of each run on it."""
    lines = [
        {"event": event, "at": at, "label": label, "supervisor": number}
        for number, (label, begin, end) in enumerate(notes)
        for event, at in (("start", begin), ("end", end))
    ]
    path = tmp_path / "locks" / f"{UUID}.journal"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_two_rows_that_had_one_gpu_at_a_time_are_found(forger: Forger) -> None:
    (what,) = found(forger)
    assert what.startswith(f"the row had the GPU {UUID} while the row object_t")


def test_rows_that_had_one_gpu_one_after_the_other_are_not(forger: Forger) -> None:
    begin, _ = span(forger, SECOND)
    forger.json(forger.top(FIRST).result, lambda result: result.update(end_time_utc=files.utc_text(begin)))
    assert found(forger) == []


def test_a_row_that_the_journal_of_leases_does_not_have_is_found(forger: Forger, tmp_path: Path) -> None:
    begin, end = span(forger, SECOND)
    forger.json(forger.top(FIRST).manifest, lambda manifest: manifest.update(gpu_uuid=None))
    journal(tmp_path, ("earlier", begin - 900, begin - 800), (SECOND, begin, end))
    assert found(forger) == []
    journal(tmp_path, ("earlier", begin - 900, begin - 800), ("another", begin, end))
    assert found(forger) == [f"the row says that it had the GPU {UUID}, whose journal of leases does not have it"]


def test_a_journal_that_was_emptied_since_says_nothing(forger: Forger, tmp_path: Path) -> None:
    _, end = span(forger, SECOND)
    forger.json(forger.top(FIRST).manifest, lambda manifest: manifest.update(gpu_uuid=None))
    journal(tmp_path, ("later", end + 10, end + 20))
    assert found(forger) == []


@pytest.mark.parametrize(
    ("alike", "is_found"),
    [(["init_state", "actions_sha"], False), (["init_state"], True), (["actions_sha"], True), ([], True)],
    ids=["begun_and_played_alike", "begun_alike", "played_alike", "not_alike"],
)
def test_one_film_is_of_two_episodes_only_where_they_began_alike_and_the_policy_did_the_same(
    forger: Forger, alike: list[str], is_found: bool
) -> None:
    """As two checkpoints do that differ in a file beside the weights, or two rows that replay one demonstration."""
    folder = forger.top(BASE)
    first, _ = files.read_lines_or_empty(folder.episodes)
    forger.json(folder.result, lambda result: result["files"].update({FILM.format(1): result["files"][FILM.format(0)]}))
    forger.lines(
        folder.episodes,
        lambda line: line.update({key: first[key] for key in alike}) if line["episode"] == 1 else None,
    )
    what = f"the file is the same as artifacts/runs/{BASE}/attempts/1/{FILM.format(0)}, which is of another episode"
    assert (what in found(forger)) == is_found
