"""A pass stands only for what would run today: each change of software, of what a policy loads, or of variables that
decide an outcome asks for a new run and is named; other changes do not."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import Path

import campaigns
import pytest
from campaigns import Made
from contracts_page import table, words

from tracka.core import errors, files, hashing
from tracka.core.files import Json
from tracka.engines import codebase, software
from tracka.execution import environment, gpu
from tracka.runs import identity, run

ROW, OTHER = "long_b1_e6", "wide_b4_e4"
LOADED = "checkpoints/loaded"  # what the policy loads by name, a folder in the campaign
SITE = "site"  # a folder of packages that come before the installed ones


@pytest.fixture(scope="module")
def once(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign whose row has passed with packages, a checkout and a loaded model that lie in its folder."""
    root = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("identity") / "campaign"))
    made = Made(root, campaigns.environment(root))
    config = files.read_json(root / "checkpoints/fake/config.json")
    files.write_json(root / "checkpoints/fake/config.json", config | {"type": "smolvla", "vlm_model_name": LOADED})
    for name in ("config.json", "tokenizer.json"):
        files.write_json(root / LOADED / name, {"layers": 1})
    install(root / SITE, "lerobot_policy_other", "1.0", editable(root / "checkout"))
    files.write_text(root / "checkout/src/lerobot_policy_other/__init__.py", "speed = 1\n")
    made.configure('[security]\ntrusted = ["lerobot_policy_other"]')
    with pytest.MonkeyPatch.context() as patch:
        put_first(made, patch)
        assert made.run_row(ROW)["status"] == "pass"
    return made


@pytest.fixture
def passed(once: Made, copy_of: Callable[[Made], Made], monkeypatch: pytest.MonkeyPatch) -> Made:
    """A copy of it, which is another place for all that it runs with."""
    made = copy_of(once)
    install(made.root / SITE, "lerobot_policy_other", "1.0", editable(made.root / "checkout"))
    put_first(made, monkeypatch)
    return made


def put_first(made: Made, patch: pytest.MonkeyPatch) -> None:
    """Lets this process and its children find the campaign's stand-ins, and its packages before the installed ones."""
    for name, value in made.environ.items():
        patch.setenv(name, value)
    patch.syspath_prepend(made.root / SITE)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(made.root / SITE), made.environ["PYTHONPATH"]]))


def install(site: Path, name: str, version: str, origin: Json | None = None, needs: str = "") -> None:
    """Puts a package into the folder `site` as far as its metadata go; `origin` says where pip had it from."""
    folder = site / f"{name}-{version}.dist-info"
    needed = f"Requires-Dist: {needs}\n" if needs else ""
    files.write_text(folder / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}\n")
    if origin:
        files.write_json(folder / "direct_url.json", origin)


def editable(folder: Path) -> Json:
    return {"url": folder.as_uri(), "dir_info": {"editable": True}}


def refusal(made: Made, row: str = ROW) -> str:
    """What is said of a row that passed and would run again; nothing starts."""
    started = made.started()
    with pytest.raises(errors.ChangedRun) as caught:
        made.run_row(row)
    assert made.started() == started
    return str(caught.value)


def append(path: Path, text: str = "# changed\n") -> None:
    with path.open("a") as file:
        file.write(text)


# changes that ask for a new run

NAMES = [
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "numpy",
    "safetensors",
    "accelerate",
    "peft",
    "diffusers",
]
NAMES += [
    "mujoco",
    "robosuite",
    "hf-libero",
    "lerobot",
    "gymnasium",
    "bddl",
    "opencv-python-headless",
    "draccus",
    "numba",
]


@pytest.mark.parametrize("name", NAMES)
def test_another_version_of_a_package_that_an_evaluation_imports_asks_for_a_new_run(passed: Made, name: str) -> None:
    before = software.packages(Path()).versions[name]
    install(passed.root / SITE, name, "99.1")
    said = refusal(passed)
    assert f"packages: {name} 99.1 instead of {before}" in said
    assert "--allow-overwrite" in said and "tracka why" in said


@pytest.mark.parametrize("name", ["flash-attn", "xformers", "kernels"])
def test_a_package_that_is_used_where_it_is_installed_counts_once_it_is(passed: Made, name: str) -> None:
    install(passed.root / SITE, name, "3.0")
    assert f"packages: {name} 3.0 instead of -" in refusal(passed)


@pytest.mark.parametrize("needs", ["some.Thing>=1", 'some_thing; os_name ~= "posix"', "some_thing; no marker"])
def test_what_a_plug_in_asks_for_counts_like_what_lerobot_asks_for(passed: Made, needs: str) -> None:
    install(passed.root / SITE, "lerobot_policy_other", "1.0", editable(passed.root / "checkout"), needs)
    install(passed.root / SITE, "some_thing", "1.5")
    assert "packages: some-thing 1.5 instead of -" in refusal(passed)


@pytest.mark.parametrize(
    ("origin", "other"),
    [
        ({"vcs_info": {"vcs": "git", "commit_id": "a" * 40}}, {"vcs_info": {"vcs": "git", "commit_id": "b" * 40}}),
        ({"dir_info": {}}, {"dir_info": {}}),
    ],
    ids=["commit", "folder"],
)
def test_a_package_of_one_version_from_another_source_asks_for_a_new_run(
    passed: Made, origin: Json, other: Json
) -> None:
    install(passed.root / SITE, "einops", "1.0", origin | {"url": "https://host/einops"})
    files.write_text(passed.root / SITE / "einops-1.0.dist-info/RECORD", "einops/__init__.py,sha256=one,1\n")
    versions = software.packages(Path()).versions
    files.write_text(passed.root / SITE / "einops-1.0.dist-info/RECORD", "einops/__init__.py,sha256=two,1\n")
    files.write_json(
        passed.root / SITE / "einops-1.0.dist-info/direct_url.json", other | {"url": "https://host/einops"}
    )
    assert software.packages(Path()).versions["einops"] != versions["einops"]


LOADS = {
    "tokenizer": lambda made: files.write_json(made.root / LOADED / "tokenizer.json", {"layers": 2}),
    "backbone": lambda made: files.write_json(made.root / LOADED / "config.json", {"layers": 2}),
    "a file more": lambda made: files.write_text(made.root / LOADED / "merges.txt", "a b\n"),
}


@pytest.mark.parametrize("change", LOADS.values(), ids=LOADS)
def test_a_folder_that_the_policy_loads_by_name_asks_for_a_new_run_once_it_is_edited(
    passed: Made, change: Callable[[Made], None]
) -> None:
    change(passed)
    assert f"loaded: base_model {LOADED}" in refusal(passed)


AGAIN = run.RerunPolicy(resume=True, allow_overwrite=True)


def test_a_tokenizer_that_the_processors_name_asks_for_a_new_run_once_it_is_edited(passed: Made) -> None:
    step = {"registry_name": "tokenizer_processor", "config": {"tokenizer_name": "checkpoints/words"}}
    files.write_json(passed.root / "checkpoints/fake/policy_preprocessor.json", {"steps": [step]})
    files.write_json(passed.root / "checkpoints/words/tokenizer.json", {"words": 1})
    assert passed.run_row(ROW, AGAIN)["status"] == "pass"
    files.write_json(passed.root / "checkpoints/words/tokenizer.json", {"words": 2})
    assert "loaded: tokenizer checkpoints/words" in refusal(passed)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_the_base_of_an_adapter_asks_for_a_new_run_once_it_is_edited(passed: Made, name: str) -> None:
    fake, base = passed.root / "checkpoints/fake", passed.root / "checkpoints/base"
    shutil.copytree(fake, base)
    files.write_json(fake / "config.json", files.read_json(fake / "config.json") | {"use_peft": True})
    files.write_json(fake / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "checkpoints/base"})
    (fake / "model.safetensors").rename(fake / "adapter_model.safetensors")
    assert passed.run_row(ROW, AGAIN)["status"] == "pass"
    other = {"config.json": (base / "config.json").read_bytes() + b"\n", "model.safetensors": campaigns.OTHER_WEIGHTS}
    (base / name).write_bytes(other[name])
    assert "loaded: base_model checkpoints/base" in refusal(passed)


def test_a_model_that_the_campaigns_own_flags_name_is_the_one_that_counts(passed: Made) -> None:
    shutil.copytree(passed.root / LOADED, passed.root / "checkpoints/flagged")
    known = files.read_json(passed.layout.capabilities)
    known["supported_flags"].append("--policy.vlm_model_name")
    files.write_json(passed.layout.capabilities, known)
    passed.configure(f'[rows.{OTHER}.flags]\n"policy.vlm_model_name" = "checkpoints/flagged"')
    assert passed.run_row(OTHER)["status"] == "pass"
    files.write_json(passed.root / LOADED / "config.json", {"layers": 2})
    assert passed.run_row(OTHER)["attempt"] == 1
    files.write_json(passed.root / "checkpoints/flagged/config.json", {"layers": 2})
    assert "loaded: base_model checkpoints/flagged" in refusal(passed, OTHER)


@pytest.mark.parametrize("name", ["src/lerobot_policy_other/__init__.py", "helper.py"])
def test_a_dirty_checkout_that_is_edited_a_second_time_asks_for_a_new_run_again(passed: Made, name: str) -> None:
    for number in (2, 3):
        append(passed.root / "checkout" / name, f"speed = {number}\n")
        assert "code: lerobot-policy-other" in refusal(passed)
        again = passed.run_row(ROW, run.RerunPolicy(resume=True, allow_overwrite=True))
        assert (again["status"], again["attempt"]) == ("pass", number)


def test_a_folder_that_links_to_itself_is_read_once(passed: Made, tmp_path: Path) -> None:
    files.write_text(tmp_path / "package/part.py", "x = 1\n")
    before = hashing.of_kind(tmp_path / "package", codebase.PACKAGE)
    (tmp_path / "package/again").symlink_to(".")
    (tmp_path / "package/part2.py").symlink_to("part2.py")
    assert hashing.of_kind(tmp_path / "package", codebase.PACKAGE) == before


def test_results_and_hidden_files_of_a_checkout_are_none_of_its_code(passed: Made) -> None:
    for name in ("outputs/eval_info.json", ".git/index.py", ".venv/pyvenv.cfg", "env/pyvenv.cfg", "env/lib/a.py"):
        files.write_text(passed.root / "checkout" / name, "changed")
    assert passed.run_row(ROW)["attempt"] == 1


@pytest.mark.parametrize("package", ["lerobot", "libero", "robosuite"])
def test_code_that_is_edited_where_it_is_installed_asks_for_a_new_run(
    passed: Made, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = passed.root / "installed"
    files.write_text(folder / package / "__init__.py", "speed = 1\n")
    install(folder, "of_no_evaluation", "1.0")
    monkeypatch.syspath_prepend(folder)  # as if the environment's own folder were this one
    first = passed.run_row(ROW, run.RerunPolicy(resume=True, allow_overwrite=True))
    append(folder / package / "part.py")
    name = "hf-libero" if package == "libero" else package
    assert f"code: {name}" in refusal(passed)
    assert first["status"] == "pass"


@pytest.mark.parametrize("name", ["lerobot/__init__.py", "transformers/__init__.py", "json.py", "sitecustomize.py"])
def test_a_module_that_python_path_puts_before_the_installed_one_asks_for_a_new_run(
    passed: Made, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_text(passed.root / "first" / name, "x = 1\n")
    files.write_text(passed.root / "first" / "mine.py", "x = 1\n")
    monkeypatch.setenv("PYTHONPATH", f"first{os.pathsep}{os.environ['PYTHONPATH']}")  # from the campaign's folder
    assert f"code: PYTHONPATH: {name.partition('/')[0]}" in refusal(passed)


def test_other_init_states_in_the_folder_that_liberos_config_names_ask_for_a_new_run(
    passed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Path(environment.libero_config_path()) / "config.yaml"
    text = ours.read_text()
    states = next(line.split('"')[1] for line in text.splitlines() if line.startswith("init_states:"))
    shutil.copytree(states, passed.root / "states")
    files.write_text(passed.root / "libero/config.yaml", text.replace(states, str(passed.root / "states")))
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(passed.root / "libero"))
    assert passed.run_row(ROW)["attempt"] == 1  # the same states elsewhere
    next((passed.root / "states").rglob("*.pruned_init")).write_bytes(b"others")
    assert "code: hf-libero init_states" in refusal(passed)


VARIABLES = [
    "OMP_NUM_THREADS",
    "MKL_CBWR",
    "NVIDIA_TF32_OVERRIDE",
    "TORCHDYNAMO_DISABLE",
    "PYTORCH_JIT",
    "NUMBA_DISABLE_JIT",
]
VARIABLES += [
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "LIBGL_ALWAYS_SOFTWARE",
    "GALLIUM_DRIVER",
    "MUJOCO_PLUGIN",
    "PYTHONHASHSEED",
]
VARIABLES += ["TRANSFORMERS_ATTENTION", "HF_ENABLE_PARALLEL_LOADING", "CUDA_LAUNCH_BLOCKING"]


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_may_decide_an_outcome_asks_for_a_new_run(
    passed: Made, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "17")
    assert f"environment: {name} 17 instead of " in refusal(passed)


def test_a_gl_driver_counts_by_the_content_of_the_file_that_chooses_it(
    passed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "same", "other"):
        files.write_json(passed.root / name / "50_vendor.json", {"library": "b" if name == "other" else "a"})
    hashes = []
    for place in ("one/50_vendor.json", "same/50_vendor.json", "other/50_vendor.json", "one", "same", "other"):
        monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", str(passed.root / place))
        assert "__EGL_VENDOR_LIBRARY_FILENAMES" in refusal(passed)
        hashes.append(environment.outcome_variables()["__EGL_VENDOR_LIBRARY_FILENAMES"])
    assert hashes[0] == hashes[1] != hashes[2] and hashes[3] == hashes[4] != hashes[5]


@pytest.mark.parametrize(
    ("kind", "caller", "told"),
    [("pi0", None, "1"), ("smolvla", None, "1"), ("act", "0", "1"), ("a_plug_in", None, None), ("groot", None, None)],
)
def test_a_row_takes_what_was_found_in_the_cache_and_not_what_the_hub_has_by_now(
    passed: Made, monkeypatch: pytest.MonkeyPatch, kind: str, caller: str | None, told: str | None
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if caller:
        monkeypatch.setenv("HF_HUB_OFFLINE", caller)
    spec = replace(passed.spec, executable=())
    plan = run.plan_row(passed.spec, spec.row(ROW), run.load_host(spec.layout))
    asked = replace(plan, campaign=spec, checkpoint=replace(plan.checkpoint, policy_type=kind))
    assert asked.environ(gpu.CPU_DEVICE).get("HF_HUB_OFFLINE") == told
    assert "HF_HUB_OFFLINE" not in plan.environ(gpu.CPU_DEVICE) or caller  # a program of the campaign's own


def test_a_row_is_not_started_with_the_lerobot_eval_of_another_python(passed: Made) -> None:
    spec, host = replace(passed.spec, executable=()), run.load_host(passed.layout)
    foreign = replace(host, executable=("/opt/other/bin/lerobot-eval",))
    with pytest.raises(errors.UsageError, match="belongs to another Python"):
        run.run_row(spec, spec.row(OTHER), foreign)
    assert passed.started() == [ROW] and not passed.layout.run(OTHER).path.exists()


# changes that do not


def test_a_pass_stands_where_another_clones_lerobot_eval_was_asked_for_its_flags(passed: Made) -> None:
    spec, host = replace(passed.spec, executable=()), run.load_host(passed.layout)
    plans = [
        run.plan_row(spec, spec.row(ROW), replace(host, executable=(f"{place}/bin/lerobot-eval",)))
        for place in (sys.prefix, "/opt/other")
    ]
    assert plans[0].row_hash == plans[1].row_hash
    assert passed.evidence(ROW) == []


def test_another_clone_of_the_campaign_asks_for_no_new_run(passed: Made, tmp_path: Path) -> None:
    shutil.copytree(passed.root / SITE, tmp_path / "elsewhere" / SITE)
    other = Made(Path(shutil.copytree(passed.root, tmp_path / "elsewhere/campaign")), passed.environ)
    assert other.run_row(ROW)["attempt"] == 1


PLACES = [
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "MUJOCO_EGL_DEVICE_ID",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_TOKEN",
]
PLACES += ["TORCH_HOME", "XDG_RUNTIME_DIR", "TMPDIR", "HOME", "SLURM_JOB_ID", "SLURM_NODELIST", "NCCL_DEBUG", "USER"]
PLACES += [
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_CACHE",
    "TRANSFORMERS_VERBOSITY",
    "TRACKA_GPUS_ARE_MINE",
    "https_proxy",
    "LANG",
]


@pytest.mark.parametrize("name", [*PLACES, "OF_NO_ROW"])
def test_a_place_a_node_or_a_secret_asks_for_no_new_run(
    passed: Made, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "17")
    assert name not in environment.outcome_variables()
    if name != "HOME":  # where caches are
        assert passed.run_row(ROW)["attempt"] == 1


@pytest.mark.parametrize("name", ["pytest", "pytest-xdist", "ruff", "mypy", "ipython", "jupytext", "wandb", "cmake"])
def test_a_development_tool_asks_for_no_new_run(passed: Made, name: str) -> None:
    install(passed.root / SITE, name, "99.1")
    assert passed.run_row(ROW)["attempt"] == 1


def test_a_module_on_python_path_that_hides_none_asks_for_no_new_run(
    passed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_text(passed.root / "first" / "mine.py", "x = 1\n")
    files.write_text(passed.root / "first" / "transformers" / "notes.txt", "no package\n")
    monkeypatch.setenv("PYTHONPATH", f"{passed.root / 'first'}{os.pathsep}{os.environ['PYTHONPATH']}")
    assert passed.run_row(ROW)["attempt"] == 1


# what an evaluation imports

IMPORTS = """
import contextlib, importlib, json, pkgutil, sys
with contextlib.redirect_stdout(sys.stderr):
    import lerobot.scripts.lerobot_eval, lerobot.envs.libero, peft
    for kind in ("act", "diffusion", "vqbet", "tdmpc", "multi_task_dit", "smolvla", "pi0", "pi05"):
        importlib.import_module(f"lerobot.policies.{kind}.modeling_{kind}")
print(json.dumps(sorted({name.partition(".")[0] for name, module in sys.modules.items() if module})))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_package_that_an_evaluation_imports_is_among_those_that_count(tmp_path: Path) -> None:
    campaign = campaigns.make(tmp_path / "campaign").spec
    environ = environment.for_row(campaign, gpu.CPU_DEVICE, "egl") | {"PYTHONPATH": ""}
    ended = subprocess.run([sys.executable, "-c", IMPORTS], env=environ, capture_output=True, text=True, check=True)
    owners = packages_distributions()
    imported = {software.canonical_name(name) for module in json.loads(ended.stdout) for name in owners.get(module, ())}
    assert len(imported) > 60
    assert imported - software.packages(Path()).versions.keys() - NOT_OURS == set()


# of what the interpreter itself or the test's own environment brings
NOT_OURS = {"setuptools", "tracka", "pytest", "pip"}


# the file, and older ones


def attempt(made: Made, row: str = ROW) -> Path:
    return made.layout.run(row).attempt(1).path


def test_the_row_hash_is_the_hash_of_what_the_attempt_wrote_down(passed: Made) -> None:
    folder = passed.layout.run(ROW).attempt(1)
    parts = identity.read(folder)
    assert parts is not None
    assert identity.row_hash(parts) == files.read_json(folder.result)["row_hash"]
    assert str(passed.root) not in (folder.path / identity.NAME).read_text()


@pytest.mark.parametrize("version", [None, 2])
def test_a_result_of_an_older_hash_version_says_so_and_how_to_keep_it(passed: Made, version: int | None) -> None:
    path = attempt(passed) / identity.NAME
    older = files.read_json(path) | {"hash_version": version}
    path.unlink()
    if version:
        files.write_json(path, older)
    for name in ("result.json", "run_manifest.json"):
        for folder in (attempt(passed), passed.layout.run(ROW).path):
            files.write_json(folder / name, files.read_json(folder / name) | {"row_hash": "0" * 64})
    said = refusal(passed)
    assert "hash version" in said and "software" not in said
    assert "To keep the result" in said and "tracka_version" in said


def test_the_command_shows_what_differs_and_exits_with_1(passed: Made) -> None:
    install(passed.root / SITE, "tokenizers", "99.1")
    passed.configure(f"[rows.{ROW}]\nepisode_length = 9")
    ended = passed.call("why", ROW, "--root", str(passed.root))
    assert (ended.returncode, ended.stderr) == (1, "")
    lines = ended.stdout.splitlines()
    assert lines[0].split() == [ROW, "today"]
    assert [line.split()[:-2] for line in lines[1:-1]] == [["packages:", "tokenizers"], ["settings:", "episode_length"]]
    assert lines[-1].startswith("2 of ") and lines[-1].endswith(" parts differ")


def test_the_command_exits_with_0_where_nothing_differs(passed: Made) -> None:
    ended = passed.call("why", ROW, "--root", str(passed.root))
    assert (ended.returncode, ended.stdout.count("\n")) == (0, 1)


def test_the_command_shows_two_results_side_by_side_by_run_id_or_folder(passed: Made) -> None:
    assert passed.run_row(OTHER)["status"] == "pass"
    by_id = passed.call("why", ROW, OTHER, "--root", str(passed.root))
    by_folder = passed.call("why", str(attempt(passed)), str(passed.layout.run(OTHER).path))
    assert [line.split() for line in by_id.stdout.splitlines()[1:]] == [
        line.split() for line in by_folder.stdout.splitlines()[1:]
    ]
    assert [line.split() for line in by_id.stdout.splitlines()[1:-1]] == [
        ["row:", "batch_size", "1", "4"],
        ["row:", "n_episodes", "6", "4"],
    ]


def test_all_parts_are_shown_on_request_with_a_mark_at_those_that_differ(passed: Made) -> None:
    passed.configure(f"[rows.{ROW}]\nepisode_length = 9")
    lines = passed.call("why", ROW, "--root", str(passed.root), "--all").stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("!")] == ["episode_length"]
    assert len(lines) > 100 and any(line.split()[:2] == ["packages:", "torch"] for line in lines)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("no_such_row",), "'no_such_row' is neither a folder nor a row of the campaign"),
        ((OTHER,), "the run has no attempt"),
        ((ROW, "no/such/folder"), "is neither a folder nor a row"),
        ((ROW, "."), "the run has no attempt"),
    ],
    ids=["no row", "not run", "no folder", "another folder"],
)
def test_what_cannot_be_compared_is_refused_with_2(passed: Made, words: tuple[str, ...], what: str) -> None:
    ended = passed.call("why", *words, "--root", str(passed.root))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert what in ended.stderr


def test_the_parts_are_those_of_the_page_and_of_the_schema(passed: Made) -> None:
    parts = identity.read(passed.layout.run(ROW).attempt(1))
    listed = [words(line["part"])[0] for line in table("The row hash")]
    assert parts is not None and sorted(listed) == sorted(parts)
