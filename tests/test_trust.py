"""What a policy brings that could run code: planted markers, which must never appear."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from campaigns import REPOSITORY, Made, run_words

from tracka import files, trust
from tracka.errors import UsageError

Plant = Callable[[Path, Path], None]
CLASS = "planted.Marker"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return Path.write_text, (Path(self.marker), "ran")  # type: ignore[return-value]


def step(folder: Path, **values: object) -> None:
    files.write_json(folder / "policy_preprocessor.json", {"name": "policy_preprocessor", "steps": [values]})


def plant_class(folder: Path, marker: Path) -> None:
    """A processor step of a module that writes the marker when it is imported; the module lies on PYTHONPATH."""
    text = f"open({str(marker)!r}, 'w').close()\nclass Marker:\n    pass\n"
    files.write_text(marker.parent / "modules" / "planted.py", text)
    step(folder, **{"class": CLASS, "config": {}})


def plant_torch_file(folder: Path, marker: Path) -> None:
    (folder / "weights.safetensors").write_bytes(zipped("archive/data.pkl", pickle.dumps(Bomb(marker))))


def plant_config(folder: Path, **values: object) -> None:
    files.write_json(folder / "config.json", {"type": "act", **values})


def array(marker: Path) -> bytes:
    """A .npy of one object."""
    file = io.BytesIO()
    numpy.save(file, numpy.array([Bomb(marker)], dtype=object), allow_pickle=True)
    return file.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
    return file.getvalue()


PLANTS: dict[str, tuple[Plant, str]] = {
    "class": (plant_class, CLASS),
    "pickle": (lambda folder, marker: _write(folder / "stats.pkl", pickle.dumps(Bomb(marker))), "stats.pkl"),
    "hidden_pickle": (lambda folder, marker: _write(folder / "notes.txt", pickle.dumps(Bomb(marker))), "notes.txt"),
    "torch_file": (plant_torch_file, "weights.safetensors"),
    "torch_weights": (lambda folder, _: _write(folder / "pytorch_model.bin", b"anything"), "pytorch_model.bin"),
    "array": (lambda folder, marker: _write(folder / "stats.npy", array(marker)), "stats.npy"),
    "arrays": (lambda folder, marker: _write(folder / "stats.txt", zipped("a.npy", array(marker))), "stats.txt"),
    "capitals": (lambda folder, _: _write(folder / "STATS.PKL", b"anything"), "STATS.PKL"),
    "code": (
        lambda folder, marker: _write(folder / "modeling_x.py", f"open({str(marker)!r}, 'w')".encode()),
        "modeling_x.py",
    ),
    "auto_map": (
        lambda folder, _: plant_config(folder, auto_map={"AutoModel": "modeling_x.X"}),
        "config.json:auto_map",
    ),
    "remote": (
        lambda folder, _: plant_config(folder, vlm={"trust_remote_code": True}),
        "config.json:trust_remote_code",
    ),
}


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "planted" / "marker"


@pytest.fixture
def on_path(made: Made, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The campaign, with a folder of modules that lerobot would find."""
    modules = marker.parent / "modules"
    modules.mkdir(parents=True)
    path = f"{made.environ['PYTHONPATH']}:{modules}"
    monkeypatch.setenv("PYTHONPATH", path)
    return Made(made.root, {**made.environ, "PYTHONPATH": path})


def preflight(made: Made, *more: str) -> subprocess.CompletedProcess[str]:
    words = ("--task-suite", "libero_object", "--policy-path", "checkpoints/fake", "--mujoco-gl", "egl", *more)
    return made.tracka("preflight", *words, "--artifacts-dir", str(made.layout.preflight))


@pytest.mark.parametrize("name", PLANTS)
def test_what_could_run_code_is_refused_and_runs_when_trusted_by_name(on_path: Made, marker: Path, name: str) -> None:
    on_path.pass_preflight()
    plant, word = PLANTS[name]
    plant(on_path.root / "checkpoints" / "fake", marker)
    refused = preflight(on_path)
    assert refused.returncode == 1
    assert "fail  safety:checkpoints/fake" in refused.stdout and f'--trust "{word}"' in refused.stdout
    assert preflight(on_path, "--trust", word).returncode == 0
    ended = on_path.tracka(*run_words(on_path))
    assert (ended.returncode, on_path.started(), marker.exists()) == (2, [], False)
    assert f'trusted = ["{word}"]' in ended.stderr
    on_path.configure(f"[security]\ntrusted = ['{word}']")
    assert on_path.tracka(*run_words(on_path)).returncode == 0
    assert on_path.started() == ["long_b1_e6"]


def test_the_gates_stop_before_the_first_row(on_path: Made, marker: Path) -> None:
    plant_class(on_path.root / "checkpoints" / "fake", marker)
    ended = on_path.pytest("-n0")
    assert ended.returncode == 1 and "safety:checkpoints/fake" in ended.stdout
    assert (on_path.started(), marker.exists()) == ([], False)


def test_lerobot_itself_would_run_the_planted_class(tmp_path: Path, marker: Path) -> None:
    plant_class(tmp_path / "policy", marker)
    code = "import sys; from lerobot.processor import DataProcessorPipeline as P; "
    code += "P.from_pretrained(sys.argv[1], config_filename='policy_preprocessor.json')"
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(marker.parent / "modules")}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "policy")], env=environ, capture_output=True, cwd=tmp_path
    )
    assert marker.exists()


def plant_plugin(modules: Path, marker: Path, name: str = "lerobot_policy_planted") -> None:
    files.write_text(modules / f"{name}.py", f"open({str(marker)!r}, 'w').close()")
    files.write_text(
        modules / f"{name}-1.0.dist-info" / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    )


def test_an_unknown_plug_in_is_refused_before_anything_imports_it(on_path: Made, marker: Path) -> None:
    plant_plugin(marker.parent / "modules", marker)
    ended = on_path.tracka("discover", "--artifacts-dir", str(on_path.layout.state))
    assert ended.returncode == 2 and "lerobot_policy_planted 1.0" in ended.stderr
    gates = on_path.pytest("-n0")
    assert gates.returncode == 1 and "this plug-in is installed" in gates.stdout
    assert "fail  plugins: lerobot_policy_planted 1.0" in preflight(on_path).stdout
    assert (on_path.started(), marker.exists()) == ([], False)


def test_a_plug_in_that_comes_after_preflight_stops_the_row(on_path: Made, marker: Path) -> None:
    on_path.pass_preflight()
    plant_plugin(marker.parent / "modules", marker)
    ended = on_path.tracka(*run_words(on_path))
    assert ended.returncode == 2 and "this plug-in is installed" in ended.stderr and not on_path.started()


def test_a_plug_in_that_is_trusted_by_name_may_be_there(on_path: Made, marker: Path) -> None:
    plant_plugin(marker.parent / "modules", marker)
    on_path.configure("[security]\ntrusted = ['lerobot_policy_planted']")
    assert on_path.pytest("-n0").returncode == 0


def test_several_plug_ins_are_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        trust.require_plugins(["lerobot_policy_a 1", "lerobot_policy_replay 1", "lerobot_env_b 2"], ["c"])
    assert [finding.where for finding in caught.value.findings] == ["lerobot_policy_a 1", "lerobot_env_b 2"]


@pytest.mark.parametrize(
    ("word", "allowed"),
    [
        ("lerobot.processor.normalize_processor.NormalizerProcessorStep", True),
        ("lerobot.policies.pi0.processor_pi0.Pi0NewLineProcessor", True),
        ("lerobot_evil.Step", False),
        ("lerobot.scripts.lerobot_eval.run", False),
        ("os.system", False),
        ("lerobot.processor.core.os.popenStep", False),
    ],
)
def test_only_lerobots_own_steps_may_be_named_as_classes(tmp_path: Path, word: str, allowed: bool) -> None:
    step(tmp_path, **{"class": word})
    assert (list(trust.policy_faults(tmp_path)) == []) == allowed


def test_a_step_with_a_registered_name_imports_nothing(tmp_path: Path) -> None:
    step(tmp_path, registry_name="normalizer_processor", **{"class": "os.system"})
    assert list(trust.policy_faults(tmp_path)) == []


def test_a_real_checkpoint_of_lerobot_is_trusted_as_it_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fixtures.tiny_act", str(tmp_path / "act")]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    assert json.loads((tmp_path / "act" / "config.json").read_text())["type"] == "act"
    assert list(trust.policy_faults(tmp_path / "act")) == []


def test_arrays_of_numbers_are_no_pickles(tmp_path: Path) -> None:
    numpy.save(tmp_path / "numbers.npy", numpy.zeros(3))
    numpy.save(tmp_path / "words.npy", numpy.array(["O'", "{'descr': '|O'"]))
    numpy.savez(tmp_path / "numbers.npz", a=numpy.zeros(3), O=numpy.zeros(2))
    assert list(trust.policy_faults(tmp_path)) == []
    numpy.save(tmp_path / "records.npy", numpy.array([(1, {})], dtype=[("a", int), ("b", object)]), allow_pickle=True)
    assert [finding.where for finding in trust.policy_faults(tmp_path)] == [str(tmp_path / "records.npy")]
