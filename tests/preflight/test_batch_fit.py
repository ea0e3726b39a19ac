"""Smaller defaults: what fits the host is proposed, and applied only when asked for."""

from collections.abc import Callable

import pytest
from campaigns import SETTINGS, Made

from tracka.campaign import campaign
from tracka.preflight import batch_fit
from tracka.preflight.batch_fit import Room

Maker = Callable[..., Made]
WIDE = Room(memory=500_000, disk=500_000, cores=64)
ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    "wide,libero_object,10,50,cpu,7,egl,checkpoints/fake,1",
    "off,libero_object,10,50,cpu,7,egl,checkpoints/fake,0",
)


def test_a_host_with_room_keeps_every_batch(make_campaign: Maker) -> None:
    spec = make_campaign(ROWS).spec
    assert batch_fit.smaller_batches(spec, WIDE) == {}
    assert batch_fit.check(spec, WIDE).status == "pass"


@pytest.mark.parametrize(
    ("room", "at_once", "batch"),
    [
        (Room(12_900, 500_000, 64), 1, 5),  # what batch 5 was measured to take
        (Room(12_800, 500_000, 64), 1, 2),  # 4 would fit and does not divide 50
        (Room(25_800, 500_000, 64), 2, 5),
        (Room(500_000, 500_000, 8), 1, 5),
        (Room(500_000, 500_000, 8), 8, 1),
        (Room(100, 500_000, 64), 1, 1),
    ],
)
def test_the_proposed_batch_fits_and_divides_the_episodes(
    make_campaign: Maker, room: Room, at_once: int, batch: int
) -> None:
    assert batch_fit.smaller_batches(make_campaign(ROWS).spec, room, at_once) == {"wide": batch}


def test_preflight_warns_with_the_smaller_batch_and_blocks_nothing(make_campaign: Maker) -> None:
    check = batch_fit.check(make_campaign(ROWS).spec, Room(12_900, 500_000, 64))
    assert (check.status, check.required) == ("warn", False)
    assert "wide: batch_size 5" in check.evidence and "tracka propose" in (check.remedy or "")


@pytest.mark.parametrize(
    ("room", "table", "batches", "slots"),
    [
        (Room(12_900, 500_000, 4), "", {}, None),  # eight slots by default; a batch needs no core an environment
        (Room(12_900, 500_000, 16), "", {}, 15),
        (Room(12_900, 500_000, 16), "workers = 5", {}, None),
        (Room(12_900, 500_000, 4), "slots = 40", {}, 15),
        (Room(6_000, 500_000, 4), "", {"wide": 5}, 5),
    ],
)
def test_the_resident_engines_slots_take_less_memory_and_share_cores(
    make_campaign: Maker, room: Room, table: str, batches: dict[str, int], slots: int | None
) -> None:
    settings = SETTINGS.replace("[lerobot_eval]", f'engine = "resident"\n\n[resident]\n{table}\n\n[lerobot_eval]')
    spec = make_campaign(ROWS, settings).spec
    assert batch_fit.smaller_batches(spec, room) == batches
    assert batch_fit.slots(spec, room) == slots
    assert (f"slots = {slots} in campaign.toml" in batch_fit.check(spec, room).evidence) == (slots is not None)


def test_a_disk_that_is_too_small_is_told(make_campaign: Maker) -> None:
    assert "MB are free" in batch_fit.check(make_campaign(ROWS).spec, Room(500_000, 1, 64)).evidence


def test_a_gpu_that_cannot_hold_the_weights_is_told(make_campaign: Maker) -> None:
    made = make_campaign(ROWS)
    with (made.root / "checkpoints" / "fake" / "model.safetensors").open("wb") as weights:
        weights.truncate(9 * 10**6)
    assert "no batch is small enough" in batch_fit.check(made.spec, Room(500_000, 500_000, 64, gpu=8)).evidence
    assert batch_fit.check(made.spec, Room(500_000, 500_000, 64, gpu=9)).status == "pass"


@pytest.mark.parametrize(("old", "new"), [("\n", "\r\n"), ("libero_object", '"libero_object"'), (",10,", ',"10",')])
def test_applying_changes_the_cell_and_no_other_byte(make_campaign: Maker, old: str, new: str) -> None:
    made = make_campaign(ROWS)
    matrix = made.layout.matrix
    before = ("\ufeff" + matrix.read_text().replace(old, new)).encode()
    matrix.write_bytes(before)
    batch_fit.apply(made.spec, {"wide": 5})
    cell = b'"10"' if new == ',"10",' else b"10"
    assert matrix.read_bytes() == before.replace(b"," + cell + b",", b",5,", 1)
    assert [row.batch_size for row in campaign.load(made.root).rows] == [1, 5, 10]


def test_the_command_says_what_it_would_change_and_applies_it_only_when_asked(make_campaign: Maker) -> None:
    made = make_campaign([ROWS[0], ROWS[1].replace(",10,50,", ",1000,1000,")])
    before = made.layout.matrix.read_bytes()
    said = made.tracka("propose", "--root", str(made.root))
    assert (said.returncode, made.layout.matrix.read_bytes()) == (0, before), said.stderr
    assert "wide: batch_size 1000 -> " in said.stdout
    assert made.tracka("propose", "--root", str(made.root), "--apply").returncode == 0
    [wide] = [row for row in made.spec.rows if row.run_id == "wide"]
    assert wide.batch_size < 1000 and 1000 % wide.batch_size == 0
