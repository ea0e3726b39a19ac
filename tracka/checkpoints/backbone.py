"""torchvision's weights of a backbone, which ACT, diffusion and vqbet policies load by name before their own.

They are no repository of the hub and HF_HUB_OFFLINE does not stop the download: a row without network would fail on it.
"""

import os
import re
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from ..core import files
from ..core.errors import Finding
from .hub import Unresolved

NULL = "or set pretrained_backbone_weights to null in the checkpoint's config.json: its own weights replace them"


def fetch(name: str) -> Path:
    """The file of weights such as ResNet18_Weights.IMAGENET1K_V1, from torch's cache or else from torchvision's server.

    Its name ends with the beginning of its sha256, so a damaged one is fetched again.
    """
    address = _address(name)
    path = _cache() / address.rsplit("/", 1)[-1]
    if _whole(path):
        return path
    try:
        with urllib.request.urlopen(address, timeout=60) as answer, files.as_open_as(path.parent):
            files.write_atomic(path, answer.read())
    except OSError as error:
        what = f"{path} is not there and {address} cannot be reached ({error})"
        raise Unresolved(
            "unreachable", Finding(name, what, f"Copy the file there from another host, {NULL}")
        ) from error
    if not _whole(path):
        raise Unresolved("refused", Finding(name, f"{path} has other bytes than its name says", f"Delete it, {NULL}"))
    return path


def content(name: str) -> str:
    """What tells these weights from others: their name, or the hash of a file in torch's cache that has other bytes."""
    path = _cache() / _address(name).rsplit("/", 1)[-1]
    return path.stem if not path.is_file() or _whole(path) else files.sha256_file(path)


def _address(name: str) -> str:
    """Where torchvision has it, by its source: importing torchvision takes seconds."""
    kind, _, version = name.partition(".")
    package = find_spec("torchvision")
    source = Path(package.origin).parent / "models" / "resnet.py" if package and package.origin else Path("/nowhere")
    text = files.read_text(source).partition(f"class {kind}(")[2]
    found = re.search(
        rf'^    {re.escape(version)} = Weights\(\s*url="([^"]+)"', text.split("\nclass ")[0], re.MULTILINE
    )
    if found is None:
        raise Unresolved("missing", Finding(name, f"{source} has no such weights", f"Mend the name, {NULL}"))
    return found[1]


def _cache() -> Path:
    """Where torch keeps what it downloads."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TORCH_HOME") or Path(base) / "torch") / "hub" / "checkpoints"


def _whole(path: Path) -> bool:
    return path.is_file() and files.sha256_file(path).startswith(path.stem.rpartition("-")[2])
