"""What the campaign's policies need from elsewhere: their checkpoints and what those load by name."""

from functools import partial

from . import build, checkpoint, trust
from .campaign import Campaign
from .check import Check, guarded
from .errors import Finding, TrackaError


def checks(spec: Campaign, policy_path: str) -> list[Check]:
    """A check for each checkpoint of the campaign, and one for each tokenizer that those load by name."""
    wanted = dict.fromkeys([policy_path, *(row.policy_path for row in spec.enabled)])
    tokenizers: dict[str, None] = {}
    checks = [guarded(f"policy_resolve:{path}", partial(_resolve, spec, path, tokenizers)) for path in wanted]
    here = [path for path, check in zip(wanted, checks, strict=True) if check.status == "pass"]
    checks += [guarded(f"safety:{path}", partial(_safe, spec, path)) for path in here]
    return checks + [guarded(f"tokenizer:{name}", partial(_tokenizer, name)) for name in tokenizers]


def _safe(spec: Campaign, policy_path: str) -> str:
    """Reads what the checkpoint, which is here already, could make run."""
    folder = checkpoint.resolve(policy_path, spec.layout.root, spec.policy_roots).folder
    if found := list(trust.policy_faults(folder, spec.trusted)):
        raise TrackaError(found)
    named = f", trusted by name: {', '.join(spec.trusted)}" if spec.trusted else ""
    return f"no pickle, foreign class or remote code{named}"


def _resolve(spec: Campaign, policy_path: str, tokenizers: dict[str, None]) -> str:
    """Brings the checkpoint here and adds the tokenizers it needs to `tokenizers`, even where it does not come."""
    default = checkpoint.DEFAULT_TOKENIZERS.get(spec.defaults.policy_type or "")
    try:
        build.ensure(spec, policy_path)
        point = checkpoint.resolve(policy_path, spec.layout.root, spec.policy_roots)
    except TrackaError:
        tokenizers.update(dict.fromkeys([default] if default else []))
        raise
    tokenizers.update(dict.fromkeys(checkpoint.tokenizers(point)))
    for row in spec.enabled:
        named = spec.settings(row).policy_type
        if row.policy_path == policy_path and named not in (None, point.policy_type):
            what = f"row {row.run_id} says policy_type {named}, the checkpoint is a {point.policy_type}"
            raise TrackaError(Finding(str(spec.layout.settings), what, "Mend policy_type, then run phase 1 again"))
    return f"{point.policy_type}, revision {point.revision or 'none (a folder)'}, tree {point.tree_sha256[:12]}"


def _tokenizer(name: str) -> str:
    return str(checkpoint.find_tokenizer(name))
