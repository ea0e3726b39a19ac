"""What a policy brings that could run code: planted markers, which must never appear."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest
from campaigns import REPOSITORY, Made, fake_checkpoint, run_words

from tracka.checkpoints import checkpoint, code_safety, hub_dependencies
from tracka.core import files
from tracka.core.errors import UsageError

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
    "code": (
        lambda folder, marker: _write(folder / "modeling_x.py", f"open({str(marker)!r}, 'w')".encode()),
        "modeling_x.py",
    ),
    "auto_map": (
        lambda folder, _: plant_config(folder, auto_map={"AutoModel": "modeling_x.X"}),
        "config.json:auto_map",
    ),
}


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "planted" / "marker"


@pytest.fixture
def modules(marker: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that lerobot would find: this process could import them, and those that it starts."""
    folder = marker.parent / "modules"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(folder)
    return folder


def with_modules(made: Made, modules: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    path = f"{made.environ['PYTHONPATH']}:{modules}"
    monkeypatch.setenv("PYTHONPATH", path)
    return Made(made.root, {**made.environ, "PYTHONPATH": path})


@pytest.fixture
def on_path(made: Made, modules: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The campaign before any phase, with the folder of modules."""
    return with_modules(made, modules, monkeypatch)


@pytest.fixture
def ready_on_path(ready: Made, modules: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The campaign after phases 1 and 2, with the folder of modules."""
    return with_modules(ready, modules, monkeypatch)


def preflight(made: Made, *more: str) -> subprocess.CompletedProcess[str]:
    return made.call(*made.preflight_words(*more))


def in_a_shell_if_it_is_a_class(made: Made, name: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A planted class is what a process imports by its PYTHONPATH; the others are files."""
    return made.tracka if name == "class" else made.call


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("class", "pickle") else pytest.mark.slow) for name in PLANTS]
)
def test_what_could_run_code_is_refused_and_runs_when_trusted_by_name(
    ready_on_path: Made, marker: Path, name: str
) -> None:
    tracka = in_a_shell_if_it_is_a_class(ready_on_path, name)
    plant, word = PLANTS[name]
    plant(ready_on_path.root / "checkpoints" / "fake", marker)
    refused = tracka(*ready_on_path.preflight_words())
    assert refused.returncode == 1
    assert "fail  safety:checkpoints/fake" in refused.stdout and f'--trust "{word}"' in refused.stdout
    assert preflight(ready_on_path, "--trust", word).returncode == 0
    ended = tracka(*run_words(ready_on_path))
    assert (ended.returncode, ready_on_path.started(), marker.exists()) == (2, [], False)
    assert f'trusted = ["{word}"]' in ended.stderr
    ready_on_path.configure(f"[security]\ntrusted = ['{word}']")
    assert tracka(*run_words(ready_on_path)).returncode == 0
    assert ready_on_path.started() == ["long_b1_e6"]


def test_the_gates_stop_before_the_first_row(on_path: Made, marker: Path) -> None:
    plant_class(on_path.root / "checkpoints" / "fake", marker)
    ended = on_path.pytest("-n0")
    assert ended.returncode == 1 and "safety:checkpoints/fake" in ended.stdout
    assert (on_path.started(), marker.exists()) == ([], False)


@pytest.mark.slow  # an import of lerobot
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


def test_an_unknown_plug_in_is_refused_before_anything_imports_it(on_path: Made, modules: Path, marker: Path) -> None:
    plant_plugin(modules, marker)
    ended = on_path.tracka("discover", "--artifacts-dir", str(on_path.layout.state))
    assert ended.returncode == 2 and "lerobot_policy_planted 1.0" in ended.stderr
    gates = on_path.pytest("-n0")
    assert gates.returncode == 1 and "this plug-in is installed" in gates.stdout
    assert "fail  plugins: lerobot_policy_planted 1.0" in preflight(on_path).stdout
    assert (on_path.started(), marker.exists()) == ([], False)


def test_a_plug_in_that_comes_after_preflight_stops_the_row(ready_on_path: Made, modules: Path, marker: Path) -> None:
    plant_plugin(modules, marker)
    ended = ready_on_path.tracka(*run_words(ready_on_path))
    assert ended.returncode == 2 and "this plug-in is installed" in ended.stderr and not ready_on_path.started()


def test_a_plug_in_that_is_trusted_by_name_may_be_there(on_path: Made, modules: Path, marker: Path) -> None:
    plant_plugin(modules, marker)
    on_path.configure("[security]\ntrusted = ['lerobot_policy_planted']")
    assert on_path.pytest("-n0").returncode == 0


def test_several_plug_ins_are_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        code_safety.require_plugins(["lerobot_policy_a 1", "lerobot_policy_replay 1", "lerobot_env_b 2"], ["c"])
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
    assert (list(code_safety.policy_faults(tmp_path)) == []) == allowed


def test_a_step_with_a_registered_name_imports_nothing(tmp_path: Path) -> None:
    step(tmp_path, registry_name="normalizer_processor", **{"class": "os.system"})
    assert list(code_safety.policy_faults(tmp_path)) == []


def test_a_real_checkpoint_of_lerobot_is_trusted_as_it_is(tiny_act: Path) -> None:
    assert json.loads((tiny_act / "config.json").read_text())["type"] == "act"
    assert list(code_safety.policy_faults(tiny_act)) == []


# files


HARMLESS = {
    "README.md": b"---\nlibrary_name: lerobot\n---\n# A policy\n",
    ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    "LICENSE": b"Apache",
    "train_config.json": b'{"policy": {"type": "act"}, "trust_remote_code": false, "auto_map": null}',
    "policy_preprocessor_step_3_normalizer_processor.safetensors": b"\x80\x02" + bytes(6) + b'{"a": 1}',
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "tokenizer.json": b"{}",
    "tokenizer.model": b"\n\x0e\n\x05<unk>",
    "spm/vocab.txt": b"[PAD]\ncat\nRat\n",
    "merges.txt": "#version: 0.2\n\u0120 t\n".encode(),
    "cl100k.tiktoken": b"IQ== 0\n",
    "chat_template.jinja": b"{% for message in messages %}{% endfor %}",
    "docs/success.png": b"\x89PNG\r\n\x1a\n" + bytes(8),
    "videos/episode.mp4": bytes(3) + b" ftypisom",
    ".cache/huggingface/CACHEDIR.TAG": b"Signature: 8a477f597d28d172789f06886806bc55",
    ".cache/huggingface/.gitignore": b"*",
    ".cache/huggingface/download/config.json.metadata": b"c0ffee\nc0ffee\n1700000000.0\n",
    ".cache/huggingface/download/config.json.lock": b"",
}


def pickled(marker: Path, protocol: int) -> bytes:
    return pickle.dumps(Bomb(marker), protocol)


def disguises(marker: Path) -> dict[str, bytes]:
    """Files that no checkpoint needs, or that are not what their names say."""
    bomb = pickled(marker, 4)
    names = ("stats.dat", "stats", "stats.npy", "STATS.PKL", "model.bin", "stats.txt.bak", "LICENSE.dat", "more.yaml")
    disguised = {f"{protocol}/{name}": pickled(marker, protocol) for protocol in range(6) for name in names}
    native = dict.fromkeys(("m.so", "m.so.1", "m.pyd", "m.dylib", "m.dll", "m.PYC", "m.pth", "m.whl", "m.egg"), b"code")
    packed = {
        "x.pkl.gz": gzip.compress(bomb),
        "x.pkl.bz2": bz2.compress(bomb),
        "x.pkl.xz": lzma.compress(bomb),
        "x.zip": zipped("x.pkl", bomb),
        "x.npz": zipped("x.npy", array(marker)),
        "x.tar": b"x.pkl",
    }
    kinds = ("json", "txt", "png")
    hidden = {f"{protocol}.{kind}": pickled(marker, protocol) for protocol in range(6) for kind in kinds}
    torch_file = zipped("archive/data.pkl", bomb)
    texts = {"y.txt": gzip.compress(bomb), "y.md": torch_file, "y.jinja": b"\x7fELF" + bytes(9)}
    marked = dict.fromkeys(("z.model", "z.jpg", "z.safetensors", "LICENSE", "README.md"), bomb)
    marked |= {"torch.safetensors": torch_file, "z.json": b"{"}
    return disguised | native | packed | hidden | texts | marked


def test_what_real_checkpoints_and_downloads_consist_of_is_harmless(tmp_path: Path) -> None:
    for name, content in HARMLESS.items():
        files.write_atomic(tmp_path / name, content)
    assert list(code_safety.policy_faults(tmp_path)) == []


def test_the_page_names_every_harmless_kind() -> None:
    page = (REPOSITORY / "docs" / "preflight.md").read_text().partition("Harmless are")[2].partition("|")[0]
    named = set(re.findall(r"`([\w.]+)`", page))
    assert named == {".json", *code_safety.TEXTS, *code_safety.MARKS, *code_safety.NAMES}


def test_every_other_file_is_refused_and_trusted_by_its_path_alone(tmp_path: Path, marker: Path) -> None:
    planted = disguises(marker)
    for name, content in planted.items():
        files.write_atomic(tmp_path / "policy" / name, content)
    found = code_safety.policy_faults(tmp_path / "policy")
    assert {Path(finding.where).relative_to(tmp_path / "policy").as_posix() for finding in found} == planted.keys()
    assert all("it may be a pickle, code or an archive" in finding.what for finding in found)
    (left,) = code_safety.policy_faults(tmp_path / "policy", tuple(planted.keys() - {"x.zip"}))
    assert left.where.endswith("x.zip") and not marker.exists()


def test_the_planted_pickles_of_all_protocols_would_run(marker: Path) -> None:
    for protocol in range(6):
        shutil.rmtree(marker.parent, ignore_errors=True)
        marker.parent.mkdir()
        pickle.loads(pickled(marker, protocol))
        assert marker.exists()


# keys


@pytest.mark.parametrize(
    ("file", "value", "word"),
    [
        ("config.json", {"type": "groot"}, "config.json:type"),
        ("config.json", {"attn_implementation": "org/kernel"}, "config.json:attn_implementation"),
        ("config.json", {"vlm": {"trust_remote_code": True}}, "config.json:trust_remote_code"),
        ("sub/config.json", {"a": [{"auto_map": {"AutoModel": "x.X"}}]}, "sub/config.json:auto_map"),
        ("adapter_config.json", {"megatron_config": {"a": 1}}, "adapter_config.json:megatron_config"),
        ("adapter_config.json", {"adapters": {"0": "org/other"}}, "adapter_config.json:adapters"),
        ("adapter_config.json", {"tokenizer_name_or_path": "org/x"}, "adapter_config.json:tokenizer_name_or_path"),
        ("adapter_config.json", {"auto_mapping": {"parent_library": "os"}}, "adapter_config.json:auto_mapping"),
    ],
)
def test_a_key_that_asks_for_code_is_refused(tmp_path: Path, file: str, value: object, word: str) -> None:
    files.write_json(tmp_path / file, value)
    (finding,) = code_safety.policy_faults(tmp_path)
    assert json.dumps(word) in finding.remedy
    assert list(code_safety.policy_faults(tmp_path, (word,))) == []


def test_an_adapter_of_one_of_lerobots_policies_asks_for_no_code(tmp_path: Path) -> None:
    mapping = {"base_model_class": "SmolVLAPolicy", "parent_library": "lerobot.policies.smolvla.modeling_smolvla"}
    adapter = {"auto_mapping": mapping, "base_model_name_or_path": "org/x", "megatron_core": "megatron.core"}
    files.write_json(tmp_path / "adapter_config.json", adapter)
    assert list(code_safety.policy_faults(tmp_path)) == []


def test_a_step_that_loads_what_nobody_has_looked_at_is_refused(tmp_path: Path) -> None:
    step(tmp_path, registry_name="reward_classifier_processor", config={"pretrained_path": "org/evil"})
    (finding,) = code_safety.policy_faults(tmp_path)
    assert '"policy_preprocessor.json:pretrained_path"' in finding.remedy
    step(tmp_path, registry_name="tokenizer_processor", config={"tokenizer_name": "org/judged", "task_key": "task"})
    assert list(code_safety.policy_faults(tmp_path)) == []


def test_the_types_that_let_others_bring_code_are_lerobots() -> None:
    lerobot = find_spec("lerobot")
    assert lerobot and lerobot.origin
    policies = Path(lerobot.origin).parent / "policies"
    allowing = re.compile(r"""trust_remote_code["']?\s*[:=]\s*True""")
    sources = [path for path in policies.rglob("*.py") if allowing.search(path.read_text())]
    kinds = {path.relative_to(policies).parts[0] for path in sources}
    assert kinds == {*code_safety.REMOTE_TYPES, "pi0_fast"}  # whose two names hub_dependencies.py knows


# what is loaded by name


CODE = {"processing_x.py": b"", "processor_config.json": b'{"auto_map": {"AutoProcessor": "processing_x.X"}}'}


def name_tokenizer(made: Made, key: str = "tokenizer_name", name: str = "tokenizers/x") -> tuple[str, ...]:
    """Has the policy load a tokenizer that brings code; the names under which that is trusted."""
    for file, content in {**CODE, "tokenizer.json": b"{}"}.items():
        files.write_atomic(made.root / name / file, content)
    step(made.root / "checkpoints" / "fake", registry_name="tokenizer_processor", config={key: name})
    return f"{name}:processing_x.py", f"{name}:processor_config.json:auto_map"


def test_a_tokenizer_is_judged_as_the_policy_is(ready: Made) -> None:
    words = name_tokenizer(ready)
    refused = preflight(ready)
    assert refused.returncode == 1 and "fail  tokenizer:tokenizers/x" in refused.stdout
    ended = ready.call(*run_words(ready))
    assert (ended.returncode, ready.started()) == (2, [])
    assert all(f'trusted = ["{word}"]' in refused.stdout and f'trusted = ["{word}"]' in ended.stderr for word in words)
    ready.configure(f"[security]\ntrusted = {json.dumps(words)}")
    assert (preflight(ready).returncode, ready.call(*run_words(ready)).returncode) == (0, 0)


def test_the_policy_that_an_adapter_is_for_is_judged_as_one(ready: Made) -> None:
    base, fake = ready.root / "base", ready.root / "checkpoints" / "fake"
    fake_checkpoint(base)
    files.write_json(fake / "adapter_config.json", {"base_model_name_or_path": "base"})
    point = checkpoint.resolve("checkpoints/fake", ready.root)
    assert list(hub_dependencies.faults(point, ready.spec, [ready.spec.defaults])) == []
    (base / "adapter.bin").write_bytes(b"anything")
    (finding,) = hub_dependencies.faults(point, ready.spec, [ready.spec.defaults])
    assert '"base:adapter.bin"' in finding.remedy


def test_a_tokenizer_that_everybody_may_change_is_refused(ready: Made) -> None:
    name_tokenizer(ready)
    (ready.root / "tokenizers" / "x").chmod(0o777)
    assert "everybody may change the policy" in preflight(ready).stdout


# sweeps


def test_a_sweep_refuses_all_that_could_run_code_at_once_and_starts_nothing(ready: Made, marker: Path) -> None:
    other = ready.root / "checkpoints" / "other"
    fake_checkpoint(other)
    _write(other / "m.pyd", b"code")
    plant_class(ready.root / "checkpoints" / "fake", marker)
    with ready.layout.matrix.open("a") as matrix:
        matrix.write("other,libero_object,1,1,cpu,7,egl,checkpoints/other,1\n")
    files.make_folder(ready.layout.run("other").path)
    ended = ready.call(*ready.sweep_words())
    assert (ended.returncode, ended.stdout, ready.started(), marker.exists()) == (2, "", [], False)
    assert [line.count("trusted = [") for line in ended.stderr.splitlines()] == [1, 1, 0]
    assert "the run folder exists" in ended.stderr and not ready.layout.marker("other").exists()


def test_a_policy_that_is_not_here_fails_its_own_row_alone(ready: Made) -> None:
    with ready.layout.matrix.open("a") as matrix:
        matrix.write("lost,libero_object,1,1,cpu,7,egl,checkpoints/lost,1\n")
    ended = ready.tracka(*ready.sweep_words())
    assert ended.returncode == 1 and "3 of 4 rows passed" in ended.stdout
