"""Preflight: what it says of a host, and that it proves rendering. The renderer is a stand-in."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import campaigns
import psutil
import pytest
from campaigns import REPOSITORY, ROWS, SETTINGS, Made

from tracka.campaign import commands
from tracka.checkpoints import build, checkpoint
from tracka.core import errors, files, schema
from tracka.core.files import Json
from tracka.execution.gpu import PRETEND
from tracka.preflight import inventory, preflight

SECRETS = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "NVIDIA_API_KEY")
BROKEN, BLACK = "TRACKA_STANDIN_BROKEN_GL", "TRACKA_STANDIN_BLACK"
PLANS_KEYS = (
    "schema_version",
    "checks",
    "gpu_count",
    "gpu_names",
    "display_env",
    "mujoco_gl_requested",
    "mujoco_gl_effective",
    "backend_attempts",
    "python_version",
    "lerobot_import_ok",
    "lerobot_eval_help_ok",
    "policy_resolve_ok",
)


@pytest.fixture(autouse=True)
def bare_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without GPUs and display, whatever this one has."""
    bare(monkeypatch)


def bare(environ: pytest.MonkeyPatch) -> None:
    for name in (PRETEND, "DISPLAY", BROKEN, BLACK):
        environ.delenv(name, raising=False)
    environ.setenv("CUDA_VISIBLE_DEVICES", "")


@dataclass(frozen=True)
class Judged:
    """A campaign, and what a preflight said of its host."""

    made: Made
    report: Json


def judged(folder: Path, **variables: str) -> Judged:
    """The usual campaign in `folder` after a preflight of a bare host with these variables in its environment."""
    made = campaigns.make(folder / "campaign")
    with pytest.MonkeyPatch.context() as environ:
        bare(environ)
        for name, value in {**made.environ, **variables}.items():
            environ.setenv(name, value)
        return Judged(made, report_of(made))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A sound host, whose environment holds secrets; to be looked at alone."""
    return judged(tmp_path_factory.mktemp("sound"), **dict.fromkeys(SECRETS, "very-secret"))


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A host that renders neither with EGL nor with GLX; to be looked at alone."""
    return judged(tmp_path_factory.mktemp("blind"), **{BROKEN: "egl,glx"})


def report_of(made: Made, backend: str = "egl") -> Json:
    cfg = replace(preflight.config_of(made.spec), mujoco_gl=backend)
    return preflight.run_preflight(cfg)


def attempts(report: Json) -> list[tuple[str, bool]]:
    return [(attempt["backend"], attempt["ok"]) for attempt in report["backend_attempts"]]


def check(report: Json, name: str) -> Json:
    """The one check whose name starts with `name`."""
    [found] = [check for check in report["checks"] if check["name"].startswith(name)]
    return dict(found)


def add_row(made: Made, policy_path: str) -> None:
    with made.layout.matrix.open("a") as matrix:
        matrix.write(f"other_b1_e1,libero_object,1,1,cpu,7,egl,{policy_path},1\n")


def program(folder: Path, name: str, script: str) -> None:
    """Puts a shell script into `folder` as the program `name`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


# Waits in each of these probes until all have begun, at most 20 s, and leaves a file that says whether they met.
MEETING = """
import pathlib, sys, time
folder = pathlib.Path(__file__).parent
PROBES = ("render", "settle")
name = next((name for name in PROBES if f"tracka.preflight.probes.{name}" in sys.orig_argv), None)
if name:
    (folder / f"{name}.began").touch()
    deadline = time.monotonic() + 20
    while not (met := all((folder / f"{each}.began").exists() for each in PROBES)) and time.monotonic() < deadline:
        time.sleep(0.05)
    (folder / f"{name}.{'met' if met else 'alone'}").touch()
"""


def test_probes_of_renderer_and_simulator_run_side_by_side(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    module = made.root / "meeting" / "sitecustomize.py"
    files.write_text(module, MEETING)
    monkeypatch.setenv("PYTHONPATH", f"{module.parent}{os.pathsep}{os.environ['PYTHONPATH']}")
    assert report_of(made)["status"] == "pass"
    ends = {path.name for path in module.parent.iterdir() if path.suffix in (".met", ".alone")}
    assert ends == {"render.met", "settle.met"}


# the report


def test_the_report_has_the_plans_keys_and_follows_its_schema(sound: Judged) -> None:
    assert set(PLANS_KEYS) <= sound.report.keys()
    assert set(PLANS_KEYS) <= set(schema.load("preflight")["required"])
    assert schema.findings("preflight", sound.report, "") == []


def test_a_sound_host_passes_and_tells_what_it_is(sound: Judged) -> None:
    report = sound.report
    assert (report["status"], report["blocker"]) == ("pass", None)
    assert (report["gpu_count"], report["gpu_names"], report["display_env"]) == (0, [], None)
    assert report["python_version"] == ".".join(map(str, sys.version_info[:3]))
    assert report["lerobot_import_ok"] and report["lerobot_eval_help_ok"] and report["policy_resolve_ok"]
    # The stand-in campaign mixes batch sizes on purpose, of which the linter warns; a small host gets a proposal.
    found = {entry["status"] for entry in report["checks"] if not entry["name"].startswith(("lint:", "proposal"))}
    assert found == {"pass"}


def test_the_written_report_is_the_returned_one(sound: Judged, tmp_path: Path) -> None:
    preflight.write_preflight_report(sound.report, tmp_path / "preflight.json")
    assert files.read_json(tmp_path / "preflight.json") == sound.report


def test_a_check_that_fails_has_a_remedy_and_one_that_passes_has_none(blind: Judged) -> None:
    for entry in blind.report["checks"]:
        assert bool(entry["remedy"]) == (entry["status"] != "pass"), entry
        assert entry["evidence"]


# rendering


def test_egl_that_renders_is_all_that_is_tried(sound: Judged) -> None:
    report = sound.report
    assert attempts(report) == [("egl", True)]
    assert (report["mujoco_gl_requested"], report["mujoco_gl_effective"]) == ("egl", "egl")
    assert (sound.made.layout.preflight / "frame_egl.png").is_file()


def test_where_egl_fails_glx_is_tried_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BROKEN, "egl")
    report = report_of(made)
    assert attempts(report) == [("egl", False), ("glx", True)]
    assert (report["mujoco_gl_requested"], report["mujoco_gl_effective"]) == ("egl", "glx")
    assert report["status"] == "pass"
    assert check(report, "rendering:egl")["status"] == "warn"
    assert "EGLError: the stand-in cannot render with egl" in check(report, "rendering:egl")["evidence"]
    assert check(report, "simulator:libero_object")["status"] == "pass"  # probed again, with glx


def test_where_both_fail_the_host_is_blocked_with_both_reasons(blind: Judged) -> None:
    report = blind.report
    assert attempts(report) == [("egl", False), ("glx", False)]
    assert (report["status"], report["mujoco_gl_effective"]) == ("blocked", None)
    for backend in ("egl", "glx"):
        assert f"cannot render with {backend}" in report["blocker"]


NOISY = """
import builtins
class EGLGLContext:
    def __del__(self):
        raise AttributeError("'EGLGLContext' object has no attribute '_context'")
builtins.context = EGLGLContext()  # lives until the interpreter ends, as robosuite's does
raise ImportError("Cannot initialize a EGL device display")
"""


def test_the_blocker_and_the_handoffs_notes_name_the_error_and_not_what_a_destructor_prints_after_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = made.root / "noisy" / "lerobot" / "__init__.py"
    files.write_text(module, NOISY)
    monkeypatch.setenv("PYTHONPATH", f"{module.parent.parent}{os.pathsep}{os.environ['PYTHONPATH']}")
    made.pass_preflight()
    report, handoff = (files.read_json(path) for path in (made.layout.preflight_report, made.layout.handoff("phase2")))
    assert "EGLGLContext.__del__" in (made.layout.preflight / "render_egl.err").read_text()
    cause = "exit code 1: ImportError: Cannot initialize a EGL device display"
    assert f"no frame (last stage: none), {cause}" in report["blocker"]
    assert f"the probe did not come to this task ({cause})" in report["blocker"]
    assert handoff["status"] == "blocked" and handoff["details"]["blocker"] == report["blocker"]
    assert sum(cause in note for note in handoff["notes"]) >= 3  # rendering, the import, the simulator
    assert "EGLGLContext" not in str([report, handoff])


@pytest.mark.parametrize("backend", ["glx", "osmesa"])
@pytest.mark.parametrize("works", [True, False])
def test_a_backend_that_is_asked_for_by_name_is_the_only_one_tried(
    made: Made, monkeypatch: pytest.MonkeyPatch, backend: str, works: bool
) -> None:
    monkeypatch.setenv(BROKEN, "" if works else backend)
    report = report_of(made, backend)
    assert attempts(report) == [(backend, works)]
    assert report["mujoco_gl_effective"] == (backend if works else None)


@pytest.mark.parametrize(("black", "effective"), [("egl", "glx"), ("egl,glx", None)])
def test_a_black_frame_is_no_picture(
    made: Made, monkeypatch: pytest.MonkeyPatch, black: str, effective: str | None
) -> None:
    monkeypatch.setenv(BLACK, black)
    report = report_of(made)
    assert report["mujoco_gl_effective"] == effective
    assert "deviation 0.0" in report["backend_attempts"][0]["evidence"]


def test_a_renderer_that_hangs_is_ended(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.layout.settings.write_text(SETTINGS.replace("row_secs = 60", "probe_secs = 1"))
    module = made.root / "hanging" / "lerobot" / "__init__.py"
    files.write_text(module, "import time; time.sleep(20)")
    monkeypatch.setenv("PYTHONPATH", f"{module.parent.parent}{os.pathsep}{os.environ['PYTHONPATH']}")
    report = report_of(made, "glx")
    assert report["status"] == "blocked"
    assert "last stage: none" in report["backend_attempts"][0]["evidence"]
    remedies = [check["remedy"] for check in report["checks"] if "took too long" in check["evidence"]]
    assert remedies and all("raise probe_secs under [timeouts]" in remedy for remedy in remedies)
    assert all("from 1 to 2" in remedy and commands.gates(made.layout, "--lf") in remedy for remedy in remedies)
    assert not report["lerobot_import_ok"]


@pytest.mark.slow
def test_without_a_display_glx_gets_one_from_xvfb_and_so_do_the_rows(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(made.root / "bin", "xvfb-run", '#!/bin/sh\nshift; echo virtual >&2; exec "$@"\n')
    monkeypatch.setenv("PATH", f"{made.root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(BROKEN, "egl")
    made.pass_preflight()
    assert files.read_json(made.layout.preflight_report)["render_prefix"] == ["xvfb-run", "-a"]
    assert made.run_row("baseline_b1_e2")["status"] == "pass"
    assert files.read_json(made.layout.run("baseline_b1_e2").manifest)["command"][:2] == ["xvfb-run", "-a"]
    assert made.layout.run("baseline_b1_e2").stderr.read_text().startswith("virtual")


def test_with_a_display_glx_takes_that(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    program(made.root / "bin", "xvfb-run", "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", f"{made.root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":9")
    report = report_of(made, "glx")
    assert (report["mujoco_gl_effective"], report["render_prefix"], report["display_env"]) == ("glx", [], ":9")


# GPUs


def test_missing_gpus_are_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRETEND, "1")
    made.layout.settings.write_text(SETTINGS.replace("expected_gpus = 0", "expected_gpus = 3"))
    report = report_of(made)
    assert check(report, "gpus")["evidence"] == "1 visible, 3 expected; missing: GPU 1, GPU 2"
    assert "expected_gpus" in check(report, "gpus")["remedy"]
    monkeypatch.setenv(PRETEND, "0")
    assert "tracka init NAME --gpus 0" in check(report_of(made), "gpus")["remedy"]
    assert (report["status"], report["gpu_count"]) == ("blocked", 1)


def test_gpus_that_are_there_are_counted_and_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRETEND, "2")
    made.layout.settings.write_text(SETTINGS.replace("expected_gpus = 0", "expected_gpus = 2"))
    report = report_of(made)
    assert (report["status"], report["gpu_count"], report["gpu_names"]) == ("pass", 2, ["pretended GPU"] * 2)


# checkpoints and tokenizers


def test_a_missing_checkpoint_is_named_with_what_to_do(made: Made) -> None:
    add_row(made, "checkpoints/none")
    report = report_of(made)
    entry = check(report, "policy_resolve:checkpoints/none")
    assert (entry["status"], entry["required"], report["status"]) == ("fail", False, "pass")  # its rows fail alone
    assert str(made.root / "checkpoints" / "none") in entry["evidence"]
    assert "[build]" in entry["remedy"]
    assert check(report, "policy_resolve:checkpoints/fake")["status"] == "pass"


def test_the_baselines_checkpoint_must_be_there(made: Made) -> None:
    shutil.rmtree(made.root / "checkpoints" / "fake")
    report = report_of(made)
    assert (report["status"], report["policy_resolve_ok"]) == ("blocked", False)
    assert "policy_resolve:checkpoints/fake" in report["blocker"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "policy_preprocessor.json"])
def test_a_checkpoint_without_a_file_is_named_with_that_file(made: Made, name: str) -> None:
    (made.root / "checkpoints" / "fake" / name).unlink()
    entry = check(report_of(made), "policy_resolve:checkpoints/fake")
    assert entry["status"] == "fail" and name in entry["evidence"]


def offline_preflight(made: Made, monkeypatch: pytest.MonkeyPatch) -> subprocess.CompletedProcess[str]:
    """The command, in a process that may not ask the hub and has an empty cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(made.root / "hub"))
    return made.tracka(*made.preflight_words())


def test_a_missing_tokenizer_is_named_with_what_to_do(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [{"registry_name": "tokenizer_processor", "config": {"tokenizer_name": "nobody/none"}}]
    files.write_json(made.root / "checkpoints" / "fake" / "policy_preprocessor.json", {"steps": steps})
    ended = offline_preflight(made, monkeypatch)
    entry = check(files.read_json(made.layout.preflight_report), "tokenizer:nobody/none")
    assert (ended.returncode, entry["status"]) == (1, "fail")
    assert "HF_HUB_OFFLINE is set, so the hub is not asked" in entry["evidence"]
    assert "hf download nobody/none" in entry["remedy"] and "tokenizer_name" in entry["remedy"]
    assert entry["evidence"] in ended.stdout


def test_the_tokenizer_of_a_checkpoint_that_is_missing_too_is_named_by_its_policy_type(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.layout.settings.write_text(SETTINGS.replace('policy_type = "act"', 'policy_type = "pi0"'))
    add_row(made, "nobody/pi0")
    offline_preflight(made, monkeypatch)
    report = files.read_json(made.layout.preflight_report)
    assert check(report, "policy_resolve:nobody/pi0")["status"] == "fail"
    assert check(report, "tokenizer:google/paligemma-3b-pt-224")["status"] == "fail"


def test_a_tokenizer_in_a_folder_is_found(made: Made) -> None:
    (made.root / "tokenizer").mkdir()
    steps = [{"config": {"tokenizer_name": str(made.root / "tokenizer")}}]
    files.write_json(made.root / "checkpoints" / "fake" / "policy_preprocessor.json", {"steps": steps})
    assert check(report_of(made), "tokenizer:")["status"] == "pass"


# snapshots


def test_without_a_driver_the_list_of_gpus_is_empty(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(made.root))
    inventory.write(made.layout.preflight)
    assert (made.layout.preflight / "nvidia_smi.txt").read_text() == ""


def test_a_driver_tells_its_gpus(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    program(made.root / "bin", "nvidia-smi", '#!/bin/sh\necho "GPU 0: stand-in $1"\n')
    monkeypatch.setenv("PATH", f"{made.root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    inventory.write(made.layout.preflight)
    assert (made.layout.preflight / "nvidia_smi.txt").read_text() == "GPU 0: stand-in -L\n"


@pytest.mark.parametrize("script", ["#!/bin/sh\necho failed; exit 9\n", "\x7fELF of another machine"])
def test_a_broken_driver_stops_nothing(made: Made, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program(made.root / "bin", "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{made.root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert report_of(made)["status"] == "pass"
    assert (made.layout.preflight / "nvidia_smi.txt").read_text() == ""


def test_installed_packages_are_on_record(sound: Judged) -> None:
    lines = (sound.made.layout.preflight / "pip_freeze.txt").read_text().splitlines()
    assert f"pytest=={pytest.__version__}" in lines
    assert lines == sorted(lines, key=str.casefold)
    assert all(line.count("==") == 1 for line in lines)


def test_no_artifact_of_preflight_holds_a_secret(sound: Judged) -> None:
    assert files.read_json(sound.made.layout.preflight / "env_snapshot.json")["env"]["PATH"]
    for path in files.walk_files(sound.made.layout.preflight):
        assert b"very-secret" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        ("https://user:token@host/team/repository.git", "https://host/team/repository.git"),
        ("https://token@host/team/repository.git", "https://host/team/repository.git"),
        ("https://me@corp.com:token@host/team/repository.git", "https://host/team/repository.git"),
        ("https://host/team/repository.git", "https://host/team/repository.git"),
        ("git@host:team/repository.git", "git@host:team/repository.git"),
    ],
)
def test_a_git_remote_is_shown_without_its_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str, shown: str
) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", remote], check=True)
    monkeypatch.chdir(tmp_path)
    assert inventory.env_snapshot()["git"]["remote"] == shown


# checkpoints that are built here


@pytest.mark.parametrize(
    ("builder", "what"),
    [
        ("none", "fixtures/ has no such builder"),
        ("gates", "the builder gates made no checkpoint, exit code 0"),
    ],
    ids=["unknown", "builds_nothing"],
)
def test_a_builder_that_builds_nothing_fails_the_check_of_its_checkpoint(made: Made, builder: str, what: str) -> None:
    made.configure(f'[build]\n"checkpoints/built" = "{builder}"')
    add_row(made, "checkpoints/built")
    entry = check(report_of(made), "policy_resolve:checkpoints/built")
    assert entry["status"] == "fail" and what in entry["evidence"] and entry["remedy"]
    assert not (made.root / "checkpoints" / "built").exists()


@pytest.mark.parametrize("path", ["checkpoints/fake", "checkpoints/other"])
def test_what_is_there_or_has_no_builder_is_left_alone(made: Made, path: str) -> None:
    made.configure('[build]\n"checkpoints/fake" = "none"')
    before = sorted((made.root / "checkpoints").rglob("*"))
    build.ensure(made.spec, path)
    assert sorted((made.root / "checkpoints").rglob("*")) == before


BUILD = """
import sys
from pathlib import Path
from tracka.checkpoints import build
from tracka.campaign import campaign
build.ensure(campaign.load(Path(sys.argv[1])), "checkpoints/act")
"""


def builders(processes: list[subprocess.Popen[bytes]], root: Path) -> Iterator[int]:
    """The process ids of builders for the campaign in `root` seen until `processes` have ended."""
    while any(process.poll() is None for process in processes):
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if "tiny_act.py" in words and str(root) in words:
                yield process.pid
        time.sleep(0.05)


@pytest.mark.simulator
@pytest.mark.slow
def test_two_processes_build_a_checkpoint_once_and_another_day_gives_the_same_bytes(
    make_campaign: Callable[..., Made], tiny_act: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_campaign(ROWS, SETTINGS + '\n[build]\n"checkpoints/act" = "tiny_act"\n')
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # the real lerobot
    files.write_text(made.root / "checkpoints" / ".act.partial" / "junk", "of a build that was cut short")
    command = [sys.executable, "-c", BUILD, str(made.root)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(2)]
    assert len(set(builders(processes, made.root))) == 1
    assert [process.returncode for process in processes] == [0, 0]
    first = checkpoint.resolve("checkpoints/act", made.root)
    assert first.policy_type == "act" and not (first.folder / "junk").exists()
    assert checkpoint.resolve(str(tiny_act), made.root).tree_sha256 == first.tree_sha256  # of another process


def test_a_failed_build_says_where_its_log_is(made: Made) -> None:
    made.configure('[build]\n"checkpoints/built" = "gates"')
    with pytest.raises(errors.TrackaError) as caught:
        build.ensure(made.spec, "checkpoints/built")
    assert Path(caught.value.findings[0].where).is_file()
