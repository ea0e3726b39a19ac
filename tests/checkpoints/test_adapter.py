"""LoRA adapters: what lerobot and PEFT would not load as it was meant is named with the remedy, and sound ones pass."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapters
import hub as served
import numpy as np
import pytest
from campaigns import REPOSITORY, Made, fake_checkpoint
from checkpoints import Arrays, change_json, change_weights
from safetensors.numpy import load_file, save_file
from test_model_tensors import HEAD, campaign_of, without

from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import Layout
from tracka.checkpoints import adapter, checkpoint, hub_dependencies, tensors
from tracka.core import files
from tracka.core.check import Check
from tracka.core.errors import TrackaError
from tracka.preflight import model_tensors, policy_resources

LORA_B = f"{adapters.LAYER}.linear2.lora_B.weight"
Change = Callable[[Path], object]  # of the folder with `base` and `lora`


@pytest.fixture
def pair(tiny_act: Path, tmp_path: Path) -> Path:
    """A campaign's folder with a policy in `base` and an adapter of it in `lora`, which a test may break."""
    return made(tiny_act, tmp_path / "campaign")


def made(tiny_act: Path, root: Path) -> Path:
    base = Path(shutil.copytree(tiny_act, root / "base"))
    adapters.write(base, root / "lora", "base")
    return root


def failed(root: Path) -> dict[str, str]:
    """What the checks without a process find wrong with the adapter, each with its remedy."""
    checks = policy_resources.policy_checks(Campaign(Layout(root), (), "", 0), "lora")
    return {check.name: f"{check.evidence} {check.remedy}" for check in checks if check.status == "fail"}


def test_a_sound_adapter_and_its_base_pass_every_check(pair: Path) -> None:
    checks = policy_resources.policy_checks(Campaign(Layout(pair), (), "", 0), "lora")
    assert {check.name.partition(":")[0]: check.status for check in checks} == {
        "policy_resolve": "pass",
        "weights": "pass",
        "safety": "pass",
        "imports": "pass",
        "statistics": "pass",
        "features": "warn",  # its frames are of 128 pixels
        "device": "pass",
    }
    assert "4 tensors, 3072 bytes over a base of 142 tensors" in next(
        each.evidence for each in checks if "weights" in each.name
    )


def words(**changed: object) -> Change:
    """Changes adapter_config.json."""
    return lambda root: change_json(root / "lora" / "adapter_config.json", lambda value: value.update(changed))


def config(of: str, **changed: object) -> Change:
    return lambda root: change_json(root / of / "config.json", lambda value: value.update(changed))


def without_files(root: Path) -> None:
    for name in checkpoint.ADAPTER:
        (root / "lora" / name).unlink()


def beside(root: Path) -> None:
    config("lora", use_peft=False)(root)
    shutil.copy(root / "base" / "model.safetensors", root / "lora")


def pickled(root: Path) -> None:
    (root / "lora" / "adapter_model.safetensors").rename(root / "lora" / "adapter_model.bin")


def pinned(root: Path) -> None:
    config("lora", type="pi0")(root)
    words(base_model_name_or_path="org/policy", revision="abc")(root)


def trained(root: Path) -> None:
    (root / "policy").mkdir()
    (root / "base").rename(root / "policy" / "pretrained_model")
    words(base_model_name_or_path="policy")(root)


def cut(root: Path) -> None:
    path = root / "base" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


# What is done to a campaign's folder, and what is said of the adapter in it.
BROKEN: dict[str, tuple[Change, tuple[str, ...]]] = {
    "adapter": (config("lora", use_peft=False), ("adapter_model.safetensors", "LoRA", "Set use_peft to true")),
    "adapter_beside": (beside, ("adapter_config.json", "loads only model.safetensors", "Set use_peft to true")),
    "use_peft": (without_files, ("adapter_config.json", "sets use_peft", "set use_peft to false")),
    "adapter_pickle": (pickled, ("adapter_model.bin", "pickle", "save_pretrained")),
    "adapter_cut": (
        lambda root: (root / "lora" / "adapter_model.safetensors").write_bytes(b""),
        ("adapter_model.safetensors", "the file is cut off"),
    ),
    "no_base_named": (
        words(base_model_name_or_path=None),
        ("key base_model_name_or_path", "does not name", "absolute or relative to the campaign's folder"),
    ),
    "base_not_here": (
        words(base_model_name_or_path="outputs/train/a/pretrained_model"),
        ("there is no folder", "outputs/train/a", "base_model_name_or_path"),
    ),
    "base_of_another_type": (config("base", type="diffusion"), ("is a diffusion", "says act", "was trained on")),
    "base_of_a_training_run": (trained, ("folder of a training run", "pretrained_model")),
    "base_without_weights": (
        lambda root: (root / "base" / "model.safetensors").rename(root / "base" / "policy.pt"),
        ("policy.pt", "a pickle", "save_pretrained"),
    ),
    "base_cut": (cut, ("model.safetensors", "the file is cut off", "again")),
    "base_is_an_adapter": (
        config("base", use_peft=True),
        ("is itself an adapter", "merge_and_unload", "do so for the base"),
    ),
    "base_changed_by_peft": (words(init_lora_weights="pissa_niter_4"), ("'pissa_niter_4'", "plain LoRA")),
    "revision_not_used": (
        pinned,
        (
            "org/policy at abc",
            "ignores the revision of a pi0's base",
            "hf download org/policy --revision abc --local-dir",
        ),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_adapter_that_lerobot_would_not_load_as_it_was_meant_is_named_with_the_remedy(pair: Path, name: str) -> None:
    change, said = BROKEN[name]
    change(pair)
    ((check, text),) = failed(pair).items()
    assert check == "policy_resolve:lora" or check == "weights:lora"
    assert [word for word in said if word not in text] == [], text
    assert "trusted" not in text


# What could run code: named by the check `safety`, and trusted by name.
UNSAFE: dict[str, tuple[Change, str]] = {
    "pickle_in_the_base": (lambda root: (root / "base" / "x.pt").write_bytes(b"any"), "base:x.pt"),
    "another_kind_of_adapter": (words(peft_type="XLORA"), "adapter_config.json:peft_type"),
    "a_cache_that_is_a_pickle": (words(corda_config={"cache_file": "x"}), "adapter_config.json:corda_config"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_an_adapter_or_its_base_could_make_run_is_refused_unless_it_is_trusted_by_name(
    pair: Path, name: str
) -> None:
    change, word = UNSAFE[name]
    change(pair)
    ((check, text),) = failed(pair).items()
    assert check == "safety:lora" and f"trusted = [{json.dumps(word)}]" in text
    trusting = Campaign(Layout(pair), (), "", 0, trusted=(word,))
    assert [each for each in policy_resources.policy_checks(trusting, "lora") if each.status == "fail"] == []


def test_a_base_that_everybody_may_change_is_refused(pair: Path) -> None:
    (pair / "base").chmod(0o777)
    ((check, text),) = failed(pair).items()
    assert check == "safety:lora" and "everybody may change the policy" in text and "chmod o-w" in text


def test_a_base_of_the_hub_is_the_commit_that_the_adapter_pins(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words(base_model_name_or_path="org/policy", revision=served.COMMIT)(pair)
    named = hub_dependencies.adapter_base(pair / "lora")
    assert named is not None and named.download_spec.revision == served.COMMIT
    snapshot = Path(shutil.copytree(pair / "base", tmp_path / "snapshot"))
    monkeypatch.setattr(hub_dependencies.hub, "fetch", {named.download_spec: snapshot}.__getitem__)
    assert adapter.base(pair / "lora", pair) == snapshot and failed(pair) == {}
    (snapshot / "model.safetensors").unlink()
    assert "the repository lacks model.safetensors" in failed(pair)["weights:lora"]


def test_a_row_of_an_adapter_starts_only_with_its_base(ready: Made) -> None:
    fake = ready.root / "checkpoints" / "fake"
    (fake / "model.safetensors").rename(fake / "adapter_model.safetensors")
    change_json(fake / "config.json", lambda value: value.update(use_peft=True))
    files.write_json(fake / "adapter_config.json", {**adapters.CONFIG, "base_model_name_or_path": "checkpoints/base"})
    with pytest.raises(TrackaError, match=r"there is no folder .*checkpoints/base"):
        ready.run_row("baseline_b1_e2")
    assert ready.started() == []
    fake_checkpoint(ready.root / "checkpoints" / "base")
    assert (ready.run_row("baseline_b1_e2")["status"], ready.started()) == ("pass", ["baseline_b1_e2"])


def test_the_types_whose_loader_asks_the_hub_without_a_revision_are_lerobots() -> None:
    from importlib.util import find_spec

    (where,) = find_spec("lerobot").submodule_search_locations or ()  # type: ignore[union-attr]
    sources = {path.parent.name: path.read_text() for path in (Path(where) / "policies").glob("*/modeling_*.py")}
    asking = {kind for kind, text in sources.items() if 'revision=kwargs.get("revision")' in text}
    assert asking == set(adapter.WITHOUT_REVISION)


# the tensors, by PEFT's own loader


def on_adapter(change: Callable[[Arrays], Arrays]) -> Change:
    def changed(root: Path) -> None:
        path = root / "lora" / "adapter_model.safetensors"
        save_file(change(load_file(path)), path)

    return changed


# What is done to the tensors of an adapter or its base, and what is said.
TENSORS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "lora_missing": (
        on_adapter(without(LORA_B)),
        (f"1 of 4 tensors of the adapter are not in the file: {LORA_B}", "random numbers"),
    ),
    "lora_unused": (
        on_adapter(lambda arrays: arrays | {LORA_B.replace("layers.0", "layers.7"): arrays[LORA_B]}),
        ("1 tensors of the file do not belong to the adapter", "layers.7"),
    ),
    "lora_of_another_rank": (words(r=3), ("has the shape", "in the adapter")),
    "lora_without_a_target": (words(target_modules=["q_proj"]), ("PEFT cannot load the adapter", "q_proj")),
    "lora_of_another_type": (
        on_adapter(lambda arrays: arrays | {LORA_B: arrays[LORA_B].astype(np.int32)}),
        (f"{LORA_B} is of type torch.int32 in the file",),
    ),
    "saved_module_missing": (words(modules_to_save=["action_head"]), ("PEFT cannot load the adapter", "action_head")),
    "base_lacks_a_tensor": (
        lambda root: change_weights(root / "base", without(HEAD)),
        (f"1 of 142 tensors of the model are not in the file: {HEAD}",),
    ),
    "base_of_another_size": (config("lora", dim_model=32), ("has the shape",)),
}


@pytest.fixture(scope="module")
def judged(tiny_act: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Check]:
    """The check of each of these adapters, by one process; each is named absolutely, as its campaign is another."""
    root = tmp_path_factory.mktemp("adapters")
    for name, change in {"sound": lambda root: None, **{name: change for name, (change, _) in TENSORS.items()}}.items():
        made(tiny_act, root / name)
        change_json(
            root / name / "lora" / "adapter_config.json",
            lambda value, name=name: value.update(base_model_name_or_path=f"{name}/base"),
        )
        change(root / name)
    (root / "logs").mkdir()
    names = [f"{name}/lora" for name in ("sound", *TENSORS)]
    checks = model_tensors.checks(campaign_of(root, n_action_steps=None), names, root / "logs")
    return {check.name.split(":")[1].split("/")[0]: check for check in checks}


@pytest.mark.slow
def test_an_adapter_whose_tensors_are_those_of_peft_passes(judged: dict[str, Check]) -> None:
    assert (judged["sound"].status, judged["sound"].evidence) == (
        "pass",
        "all 142 tensors of the model are in the file, and all 4 of the adapter in its file",
    )


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_peft_would_leave_out_or_make_up_are_named(judged: dict[str, Check], name: str) -> None:
    check = judged[name]
    assert (check.status, check.required) == ("fail", True)
    assert [word for word in TENSORS[name][1] if word not in check.evidence] == [], check.evidence


@pytest.mark.slow  # two imports of lerobot
def test_an_adapter_that_lerobot_and_peft_save_is_as_those_of_these_tests(pair: Path) -> None:
    command = [sys.executable, adapters.__file__, "base", "saved"]
    environ = {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, check=True, cwd=pair, capture_output=True, env=environ)
    shapes = {
        name: tensor.shape
        for name, tensor in tensors.read(pair / "saved" / "adapter_model.safetensors").tensors.items()
    }
    assert shapes == adapters.SHAPES
    saved: Any = files.read_json(pair / "saved" / "adapter_config.json")
    assert {key: saved[key] for key in adapters.CONFIG} == adapters.CONFIG and saved[
        "base_model_name_or_path"
    ] == "base"
    ended = subprocess.run(
        [sys.executable, "-m", "tracka", "check", "saved"], capture_output=True, text=True, cwd=pair, env=environ
    )
    assert ended.returncode == 0 and "all 4 of the adapter in its file" in ended.stdout, ended.stdout
