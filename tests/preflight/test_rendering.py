"""Rendering on each GPU: the picture, and the proof that the leased GPU drew it. Renderer and driver are stand-ins."""

from pathlib import Path

import pytest
from campaigns import SETTINGS, Made

from tracka.core import files
from tracka.core.files import Json
from tracka.execution import gpu
from tracka.execution.gpu import Gpu
from tracka.preflight import preflight, rendering

ONE, TWO = (f"GPU-{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "12")
BROKEN, DRAWN_BY, COMPUTES_ON = "TRACKA_STANDIN_BROKEN_GL", "TRACKA_STANDIN_DRAWN_BY", "TRACKA_STANDIN_COMPUTES_ON"


@pytest.fixture
def two_gpus(made: Made, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A campaign of two GPUs on a host that has them, where EGL, CUDA and driver agree on their order."""
    made.layout.settings.write_text(SETTINGS.replace("expected_gpus = 0", "expected_gpus = 2"))
    monkeypatch.setattr(gpu, "visible_gpus", lambda: (Gpu(0, "0", ONE, "card"), Gpu(1, "1", TWO, "card")))
    monkeypatch.setattr(gpu, "driver", lambda: ("580.65", "13.0"))
    monkeypatch.setenv(DRAWN_BY, f"{ONE} {TWO}")
    monkeypatch.setenv(COMPUTES_ON, f"{ONE} {TWO}")
    return made


def report_of(made: Made) -> Json:
    return preflight.run_preflight(preflight.config_of(made.spec))


def statuses(report: Json, kind: str) -> dict[str, str]:
    return {each["name"]: each["status"] for each in report["checks"] if each["name"].startswith(f"{kind}:")}


def check(report: Json, name: str) -> Json:
    [found] = [check for check in report["checks"] if check["name"] == name]
    return dict(found)


def test_each_gpu_draws_a_frame_of_its_own_and_is_proven_to_have(two_gpus: Made) -> None:
    report = report_of(two_gpus)
    assert statuses(report, "rendering") == {"rendering:egl:gpu0": "pass", "rendering:egl:gpu1": "pass"}
    assert statuses(report, "egl_device") == {"egl_device:gpu0": "pass", "egl_device:gpu1": "pass"}
    assert [attempt["gpu_id"] for attempt in report["backend_attempts"]] == [0, 1]
    assert (two_gpus.layout.preflight / "frame_egl_gpu1.png").is_file()
    assert [each["uuid"] for each in report["gpus"]] == [ONE, TWO]


def test_egl_devices_in_another_order_are_found_and_the_remedy_mends_them(
    two_gpus: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DRAWN_BY, f"{TWO} {ONE}")
    report = report_of(two_gpus)
    assert report["status"] == "blocked"
    assert check(report, "egl_device:gpu0")["remedy"] == "Set 0 = 1 below [egl.cuda_to_egl] in campaign.toml"
    assert check(report, "egl_device:gpu1")["remedy"] == "Set 1 = 0 below [egl.cuda_to_egl] in campaign.toml"
    two_gpus.configure("[egl.cuda_to_egl]\n0 = 1\n1 = 0")
    assert report_of(two_gpus)["blocker"] is None


def test_a_frame_that_mesa_drew_is_not_the_gpus(two_gpus: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    mesa = "GPU-6d657361-3232-2e33-2e36-000000000000"
    monkeypatch.setenv(DRAWN_BY, f"{mesa} {mesa}")
    assert statuses(report_of(two_gpus), "egl_device") == {"egl_device:gpu0": "fail", "egl_device:gpu1": "fail"}


def test_a_driver_that_does_not_tell_is_warned_of(two_gpus: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DRAWN_BY)
    report = report_of(two_gpus)
    assert statuses(report, "egl_device") == {"egl_device:gpu0": "warn", "egl_device:gpu1": "warn"}
    assert report["status"] == "pass", report["blocker"]


def test_a_torch_that_sees_no_gpu_is_found(two_gpus: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COMPUTES_ON)
    found = check(report_of(two_gpus), "egl_device:gpu1")
    assert found["status"] == "fail" and "torch on no GPU" in found["evidence"]


def test_where_egl_fails_glx_is_tried_on_every_gpu(two_gpus: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BROKEN, "egl")
    report = report_of(two_gpus)
    tried = [(attempt["backend"], attempt["gpu_id"], attempt["ok"]) for attempt in report["backend_attempts"]]
    assert tried == [("egl", 0, False), ("egl", 1, False), ("glx", 0, True), ("glx", 1, True)]
    assert (report["mujoco_gl_effective"], statuses(report, "egl_device")) == ("glx", {})


def test_a_frame_of_something_else_is_no_picture_of_the_suite(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    upside_down = rendering.PICTURES | {"libero_object": f"{0xFFFFFFFFFFFFFFFF ^ 0xB4D52C961633B296:016x}"}
    monkeypatch.setattr(rendering, "PICTURES", upside_down)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    report = report_of(made)
    assert report["mujoco_gl_effective"] is None
    assert "64 of 64 hash bits differ from the expected picture" in check(report, "rendering:egl")["evidence"]


def test_a_driver_too_old_for_torchs_cuda_blocks(two_gpus: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver", lambda: ("535.104", "12.2"))
    found = check(report_of(two_gpus), "cuda")
    assert found["status"] == "fail" and "driver 535.104 runs up to 12.2" in found["evidence"]


def test_the_report_is_told_as_its_schema_says(two_gpus: Made, tmp_path: Path) -> None:
    report = report_of(two_gpus)
    preflight.write_preflight_report(report, tmp_path / "preflight.json")
    assert files.read_json(tmp_path / "preflight.json")["gpus"][0].keys() >= {"memory_free", "processes"}
