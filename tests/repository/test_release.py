"""A release: one version, a CHANGELOG that has it, a tag that agrees, and packages that an index would take."""

import re
import subprocess
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import distributions
import pytest
from campaigns import REPOSITORY
from packaging.metadata import Metadata
from packaging.version import Version

import tracka

HEAD = re.compile(r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$", re.MULTILINE)


def faults(version: str, changelog: str, tag: str) -> list[str]:
    """Returns what keeps a commit from being the release `version`; `tag` is the commit's own, or empty."""
    heads = HEAD.findall(changelog)
    found = [] if str(Version(version)) == version else [f"{version} is not the usual form of a version"]
    if not heads or heads[0][0] != version:
        found.append(f"the first head of CHANGELOG.md is not of {version}")
    if tag and tag != f"v{version}":
        found.append(f"the tag {tag} is not v{version}")
    if tag and heads and heads[0][1] == "unreleased":
        found.append(f"CHANGELOG.md has no date for {version}")
    return found


def tag_of_this_commit() -> str:
    words = ["git", "tag", "--points-at", "HEAD", "--list", "v*"]
    return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()


def test_version_changelog_and_tag_agree() -> None:
    assert faults(tracka.__version__, (REPOSITORY / "CHANGELOG.md").read_text(), tag_of_this_commit()) == []


@pytest.mark.parametrize(
    ("version", "head", "tag", "found"),
    [
        ("1.2.0", "## 1.2.0 (2027-01-31)", "v1.2.0", []),
        ("1.2.0", "## 1.2.0 (unreleased)", "", []),
        ("1.2.0", "## 1.2.0 (unreleased)", "v1.2.0", ["CHANGELOG.md has no date for 1.2.0"]),
        ("1.2.0", "## 1.1.0 (2027-01-31)", "", ["the first head of CHANGELOG.md is not of 1.2.0"]),
        ("1.2.0", "## 1.2.0 (2027-01-31)", "v1.2", ["the tag v1.2 is not v1.2.0"]),
        ("1.2.0-rc1", "## 1.2.0-rc1 (unreleased)", "", ["1.2.0-rc1 is not the usual form of a version"]),
    ],
)
def test_what_does_not_agree_is_said(version: str, head: str, tag: str, found: list[str]) -> None:
    assert faults(version, f"# Changelog\n\n{head}\n\n* Something.\n\n## 0.1.0 (2026-01-31)\n", tag) == found


def test_the_version_stands_in_one_place() -> None:
    assert f'"{tracka.__version__}"' not in (REPOSITORY / "pyproject.toml").read_text()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist of this working tree."""
    out = distributions.build(tmp_path_factory.mktemp("release"))
    ((wheel,), (sdist,)) = (list(out.glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return wheel, sdist


@pytest.mark.slow
def test_an_index_would_take_wheel_and_sdist(built: tuple[Path, Path]) -> None:
    wheel, sdist = built
    name = f"tracka-{tracka.__version__}"
    with zipfile.ZipFile(wheel) as file:
        of_wheel = file.read(f"{name}.dist-info/METADATA").decode()
        assert f"{name}.dist-info/licenses/LICENSE" in file.namelist()
    with tarfile.open(sdist) as archive:
        of_sdist = archive.extractfile(f"{name}/PKG-INFO")
        assert of_sdist is not None
        texts = [of_wheel, of_sdist.read().decode()]
    for text in texts:
        metadata = Metadata.from_email(text, validate=True)
        assert (metadata.name, str(metadata.version)) == ("tracka", tracka.__version__)
        assert metadata.description_content_type == "text/markdown"
        message: Message = Parser().parsestr(text)
        assert str(message.get_payload()).lstrip().startswith("# Track A")
