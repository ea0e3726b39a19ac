"""Lists what a policy loads by name beside its checkpoint, as lerobot 0.6.1 does: tokenizers, base models, a backbone.

The list is read from the checkpoint's JSON files; nothing is imported and no weights are loaded. What the files name is
judged by the rules of the checkpoint itself.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..campaign import path_safety
from ..campaign.campaign import Campaign, EvalSettings
from ..core import files, hashing
from ..core.errors import Finding, TrackaError, joined_names, shortened
from . import checkpoint, checkpoint_format, code_safety, contained_files, hub, policy_metadata, torchvision_weights
from .checkpoint import Checkpoint
from .hub import DownloadSpec

PALIGEMMA = "google/paligemma-3b-pt-224"
# Policy type -> key of its config.json -> what is loaded where the key is not set (test_hub.py compares the table
# with lerobot).
TOKENIZERS = {
    "pi0_fast": {"text_tokenizer_name": PALIGEMMA, "action_tokenizer_name": "lerobot/fast-action-tokenizer"},
    "xvla": {"tokenizer_name": "facebook/bart-large"},
}
BASE_MODELS = {
    "eo1": {"vlm_base": "Qwen/Qwen2.5-VL-3B-Instruct"},
    "evo1": {"vlm_model_name": "OpenGVLab/InternVL3-1B-hf"},
    "multi_task_dit": dict.fromkeys(("vision_encoder_name", "text_encoder_name"), "openai/clip-vit-base-patch16"),
    "smolvla": {"vlm_model_name": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"},
    "vla_jepa": {
        "qwen_model_name": "Qwen/Qwen3-VL-2B-Instruct",
        "jepa_encoder_name": "facebook/vjepa2-vitl-fpc64-256",
    },
}
# The types of BASE_MODELS that load the weights too: always (None), or where the named key of the config says so.
# The other types load the config alone.
WEIGHTS: dict[str, str | None] = {
    "evo1": None,
    "multi_task_dit": None,
    "smolvla": "load_vlm_weights",
    "vla_jepa": None,
}
# Keys of every config.json that say where a policy came from or went to, and that nothing loads from.
NEVER_LOADED = ("repo_id", "pretrained_path", "license")
# Keys of an adapter with patterns of modules' names, in which a backslash is no path's.
PATTERNS = ("exclude_modules", "layers_pattern", "modules_to_save", "target_modules", "target_parameters")
# Tokenizers named in the processors' code, so that no config can say otherwise.
FIXED = dict.fromkeys(("pi0", "pi05", "pi0_fast"), PALIGEMMA)
# The types for which this module knows all that they load by name.
KNOWN = ("act", "diffusion", "pi0", "pi05", "tdmpc", "vqbet", *TOKENIZERS, *BASE_MODELS)
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")


@dataclass(frozen=True)
class NamedDependency:
    """Describes one thing loaded by name. `kind` is tokenizer, base_model or backbone (torchvision's weights)."""

    kind: str
    name: str
    weights: bool = False
    revision: str | None = None
    is_adapter_base: bool = False  # the thing is the policy that an adapter is for

    @property
    def download_spec(self) -> DownloadSpec:
        """Returns what of a hub repository is needed, if the thing is one."""
        if self.kind == "tokenizer":
            return hub.tokenizer(self.name)
        if self.is_adapter_base:
            return hub.base_policy(self.name, self.revision)
        return hub.base_model(self.name, self.weights, self.revision)

    def folder(self, root: Path) -> Path:
        """Returns the folder with the thing's files: a local folder or a snapshot.

        A local folder is found from the campaign's `root`, as by a row, which starts there.
        """
        local_folder = root / self.name
        if local_folder.is_dir():
            return local_folder
        if self.is_adapter_base:
            return _base_snapshot(self.download_spec, local_folder)
        return _complete_snapshot(self.download_spec)

    def content_hash(self, root: Path) -> str:
        """Returns the hash of the thing's files, wherever the files are."""
        if self.kind == "backbone":
            return torchvision_weights.content(self.name)
        folder = self.folder(root)
        patterns = ("*",) if folder == root / self.name else self.download_spec.patterns or ("*",)
        digests = hashing.of_files(folder)
        needed_digests = {
            name: value for name, value in digests.items() if any(fnmatch(name, pattern) for pattern in patterns)
        }
        return files.sha256(files.canonical(needed_digests))

    def faults(self, campaign: Campaign) -> Iterator[Finding]:
        """Yields why the thing may not be loaded, by the rules for a checkpoint.

        A backbone has no faults, because its bytes are those of its hash.
        """
        if self.kind == "backbone":
            return
        folder, prefix = self.folder(campaign.layout.root), f"{self.name}:"
        if unsound := list(contained_files.findings(folder.resolve())):
            yield from unsound
            return
        if folder == campaign.layout.root / self.name:
            yield from path_safety.policy_faults(folder.resolve(), campaign.policy_roots)
            yield from code_safety.policy_faults(folder, campaign.trusted, prefix)
        else:
            yield from code_safety.policy_faults(
                folder, campaign.trusted, prefix, self.download_spec.patterns or ("*",)
            )


def faults(point: Checkpoint, campaign: Campaign, settings: Sequence[EvalSettings]) -> Iterator[Finding]:
    """Yields what of the checkpoint, and of what it loads by name under these settings, could run untrusted code."""
    yield from own_faults(point.folder, campaign.trusted)
    for dependency in named_dependencies(point, settings):
        yield from dependency.faults(campaign)


def own_faults(folder: Path, trusted: tuple[str, ...]) -> Iterator[Finding]:
    """Yields what of the checkpoint's own files could run untrusted code, or may load what no hash covers."""
    yield from code_safety.policy_faults(folder, trusted)
    for file, key, value in _unhashed_names(folder):
        word = f"{file}:{key}"
        if word not in trusted:
            what = f"{key} names {shortened(ascii(value))}, which Track A neither checks nor hashes"
            yield Finding(f"{folder / file}, key {key}", what, code_safety.REMEDY.format(name=json.dumps(word)))


def _unhashed_names(folder: Path) -> Iterator[tuple[str, str, object]]:
    """Yields file, key and value of each name of something elsewhere that `named_dependencies` does not know."""
    config = files.read_or_empty(folder / "config.json")
    kind = str(config.get("type"))
    known = {*NEVER_LOADED, *TOKENIZERS.get(kind, ()), *BASE_MODELS.get(kind, ())}
    adapter = files.read_or_empty(folder / checkpoint_format.ADAPTER_CONFIG)
    for file, table, names in (
        ("config.json", config, known),
        (checkpoint_format.ADAPTER_CONFIG, adapter, {"base_model_name_or_path", *code_safety.ADAPTER, *PATTERNS}),
    ):
        yield from (
            (file, key, value) for key, value in table.items() if key not in names and code_safety.is_path_like(value)
        )


def content_hashes(point: Checkpoint, campaign: Campaign, settings: EvalSettings) -> dict[str, str]:
    """Returns the content hash of each thing that the checkpoint loads by name, by the thing's kind and name.

    Call this function only where `faults` has found everything in place.
    """
    return {
        f"{dependency.kind} {dependency.name}": dependency.content_hash(campaign.layout.root)
        for dependency in named_dependencies(point, [settings])
    }


def _complete_snapshot(spec: DownloadSpec) -> Path:
    """Returns the snapshot's folder. Raises TrackaError where the repository itself lacks needed files."""
    folder = hub.fetch(spec)
    if missing := spec.missing_files(folder):
        what = f"the repository lacks {joined_names(missing)}"
        raise TrackaError(Finding(f"hub repository {spec.repo}", what, f"Name another repository; or {spec.instead}"))
    return folder


def _base_snapshot(spec: DownloadSpec, local_folder: Path) -> Path:
    """Returns the snapshot of an adapter's base. Raises TrackaError that also names the missing local folder."""
    missing_base = f"the adapter's base is not here: there is no folder {local_folder}"
    if not checkpoint.is_repository(spec.repo):
        config = checkpoint_format.ADAPTER_CONFIG
        remedy = f"Copy the policy there, or name its folder as base_model_name_or_path in {config}"
        raise hub.MissingFolder(Finding(spec.repo, missing_base, remedy))
    try:
        return _complete_snapshot(spec)
    except TrackaError as error:
        (finding,) = error.findings
        what = f"{missing_base}, and as a hub repository: {finding.what}"
        raise hub.Unresolved(getattr(error, "outcome", "refused"), replace(finding, what=what)) from error


def dependencies_of_type(kind: str, config: Mapping[str, Any]) -> Iterator[NamedDependency]:
    """Yields what a policy of this type loads by name with this config."""
    for key, default in TOKENIZERS.get(kind, {}).items():
        yield NamedDependency("tokenizer", str(config.get(key) or default))
    weights = kind in WEIGHTS and bool(config.get(WEIGHTS[kind] or "", WEIGHTS[kind] is None))
    for key, default in BASE_MODELS.get(kind, {}).items():
        yield NamedDependency("base_model", str(config.get(key) or default), weights)
    if weights_name := config.get("pretrained_backbone_weights"):
        yield NamedDependency("backbone", str(weights_name))


def default_dependencies(kind: str) -> list[NamedDependency]:
    """Returns what a policy of this type loads by name as long as no checkpoint is here that could say otherwise."""
    fixed = [NamedDependency("tokenizer", FIXED[kind])] if kind in FIXED else []
    return list(dict.fromkeys([*fixed, *dependencies_of_type(kind, {})]))


def named_dependencies(point: Checkpoint, settings: Sequence[EvalSettings] = ()) -> list[NamedDependency]:
    """Returns what the checkpoint's config (under each of these settings), processors and adapter load by name."""
    configs = [config for name in PROCESSORS for config in _step_configs(files.read_json(point.folder / name))]
    tokenizers = sorted({str(config[key]) for config in configs for key in code_safety.STEP_NAMES if config.get(key)})
    # The step that makes action tokens loads a second tokenizer, which lerobot does not save: always PaliGemma's.
    if any(config.get("action_tokenizer_name") for config in configs):
        tokenizers.append(PALIGEMMA)
    config = files.read_json(point.folder / "config.json")
    distinct = policy_metadata.distinct_settings(settings)
    overrides = [policy_metadata.overrides(setting) for setting in distinct] or [{}]
    models = [
        dependency
        for override in overrides
        for dependency in dependencies_of_type(point.policy_type, config | override)
    ]
    base = adapter_base(point.folder)
    return list(
        dict.fromkeys(
            [*(NamedDependency("tokenizer", name) for name in tokenizers), *models, *([base] if base else ())]
        )
    )


def _step_configs(processor: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    steps = processor.get("steps")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict) and isinstance(step.get("config"), dict):
            yield step["config"]


def adapter_base(folder: Path) -> NamedDependency | None:
    """Returns the policy that the adapter (PEFT) in `folder` is for; None where no adapter names a policy."""
    adapter = files.read_or_empty(folder / checkpoint_format.ADAPTER_CONFIG)
    name, revision = adapter.get("base_model_name_or_path"), adapter.get("revision")
    return (
        NamedDependency("base_model", str(name), True, str(revision) if revision else None, is_adapter_base=True)
        if name
        else None
    )
