"""The hub: the real client against a hub on this machine, each way to end with its own outcome and remedy."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hub
import pytest
from campaigns import REPOSITORY, SETTINGS, WEIGHTS, Made

from tracka.checkpoints import hub as tracka_hub
from tracka.checkpoints import hub_dependencies, torchvision_weights
from tracka.checkpoints.hub import OUTCOMES
from tracka.core import files, schema

FILES = {
    "config.json": b'{"type": "act"}',
    "model.safetensors": WEIGHTS,
    "policy_preprocessor.json": b'{"steps": []}',
    "policy_postprocessor.json": b'{"steps": [], "name": "policy_postprocessor"}',
    "tokenizer.json": b"{}",
}
BIG = 11 << 20  # the client keeps what came of a file in pieces of 10 MiB
# The client reads its environment once, when it is imported, so each call has a process of its own.
FETCH = """
import json, sys
from tracka.checkpoints import checkpoint, hub
if sys.argv[3:]:  # a full disk, as the client meets it
    import errno, huggingface_hub.file_download as client
    def http_get(*_, **__): raise OSError(errno.ENOSPC, "No space left on device")
    client.http_get = http_get
wanted = {"policy": checkpoint.download_spec, "tokenizer": hub.tokenizer}[sys.argv[1]](sys.argv[2])
try:
    print(json.dumps({"outcome": "found", "folder": str(hub.fetch(wanted))}))
except hub.Unresolved as error:
    (finding,) = error.findings
    print(json.dumps({"outcome": error.outcome, "what": finding.what, "remedy": finding.remedy}))
"""
LOOK = """
import json, sys
from pathlib import Path
from tracka.campaign import campaign
from tracka.execution import environment
from tracka.preflight import policy_resources
if sys.argv[2:]:  # rows whose cache is another one
    environment.hf_home = lambda: sys.argv[2]
spec = campaign.load(Path(sys.argv[1]))
checks, resources = policy_resources.check_resources(spec, "checkpoints/fake", spec.layout.preflight)
said = {"checks": {item.name: vars(item) for item in checks}, "resources": [vars(item) for item in resources]}
print(json.dumps(said))
"""


# LIBERO's 585 files are hashed where a test looks at them alone.
LOOK_AT_THE_HUB = f"from tracka.install import assets\nassets.wrong_assets = lambda folder: []\n{LOOK}"


@pytest.fixture(autouse=True)
def no_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing beyond this machine can be reached, and the caches are the test's."""
    shut_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub's cache after all files were fetched, for copies."""
    folder = tmp_path_factory.mktemp("downloaded")
    with pytest.MonkeyPatch.context() as environ, hub.serve(FILES) as served:
        shut_in(folder, environ)
        assert fetch(served=served)["outcome"] == "found"
    return folder / "hf"


@pytest.fixture
def cached(downloaded: Path, tmp_path: Path) -> Path:
    """The policy's folder in the cache of the test, which holds all of it."""
    shutil.copytree(downloaded, tmp_path / "hf", symlinks=True)
    return tmp_path / "hf" / "hub" / "models--org--policy" / "snapshots" / hub.COMMIT


def shut_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    given = {"no_proxy": "127.0.0.1", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(folder / "hf")}
    given |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)


def said_by(script: str, *words: str, **environ: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=REPOSITORY,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def fetch(word: str = "org/policy", served: hub.Hub | None = None, kind: str = "policy", **environ: str) -> Any:
    """What `hub.fetch` says in a process of its own."""
    address = {"HF_ENDPOINT": served.address} if served else {}
    return said_by(FETCH, kind, word, **address, **environ)


# each outcome


def test_what_the_hub_has_is_found_with_its_commit(tmp_path: Path) -> None:
    with hub.serve(FILES) as served:
        said = fetch(served=served)
    assert (said["outcome"], Path(said["folder"]).name) == ("found", hub.COMMIT)
    assert {path.name: path.read_bytes() for path in Path(said["folder"]).iterdir()} == FILES


@pytest.mark.parametrize("how", [{"gated": True}, {"refuses": (403, "GatedRepo")}])
def test_a_gated_tokenizer_has_three_ways_out(how: dict[str, Any]) -> None:
    with hub.serve(FILES, **how) as served:
        said = fetch(served=served, kind="tokenizer")
    assert (said["outcome"], said["what"]) == ("gated", "access to the repository is gated")
    for way in ("accept the licence", "hf auth login", "from a machine that has them", "tokenizer_name", "mirror"):
        assert way in said["remedy"]


@pytest.mark.parametrize("refused", [(404, "RepoNotFound"), (401, "RepoNotFound")])
def test_a_repository_that_is_not_there_is_missing(refused: tuple[int, str]) -> None:
    with hub.serve(FILES, refuses=refused) as served:
        said = fetch(served=served)
    assert (said["outcome"], said["what"]) == ("missing", "the hub has no repository of this name")
    assert "Correct the name" in said["remedy"]


def test_a_revision_that_is_not_there_is_named() -> None:
    with hub.serve(FILES) as served:
        said = fetch("org/policy@v9", served)
    assert (said["outcome"], said["what"]) == ("wrong_revision", "the repository has no revision 'v9'")
    assert "commit, tag or branch" in said["remedy"]


def test_too_many_requests_are_a_matter_of_waiting() -> None:
    with hub.serve(FILES, refuses=(429, "")) as served:
        said = fetch(served=served)
    assert said["outcome"] == "out_of_quota" and "429" in said["what"] and "Wait" in said["remedy"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_denies_access_without_a_word_of_a_gate_asks_for_a_login(status: int) -> None:
    with hub.serve(FILES, refuses=(status, "")) as served:
        said = fetch(served=served)
    assert said["outcome"] == "denied" and str(status) in said["what"] and "HF_TOKEN" in said["remedy"]


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_fails_is_a_matter_of_waiting(status: int) -> None:
    with hub.serve(FILES, refuses=(status, "")) as served:
        said = fetch(served=served)
    assert said["outcome"] == "hub_down" and str(status) in said["what"] and "Wait" in said["remedy"]


def test_a_full_disk_is_told_with_the_caches_folder(tmp_path: Path) -> None:
    with hub.serve(FILES) as served:
        said = said_by(FETCH, "policy", "org/policy", "full", HF_ENDPOINT=served.address)
    assert said["outcome"] == "disk_full" and str(tmp_path / "hf") in said["remedy"]


def test_a_hub_that_does_not_answer_is_unreachable() -> None:
    said = fetch()
    assert said["outcome"] == "unreachable" and "HF_ENDPOINT" in said["remedy"]


def test_a_download_that_breaks_off_goes_on_where_it_stopped() -> None:
    with hub.serve({**FILES, "model.safetensors": bytes(BIG)}, breaks="model.safetensors", after=BIG - 9) as served:
        said = fetch(served=served)
    assert said["outcome"] == "found"
    assert served.ranges == [f"bytes={10 << 20}-"]
    assert (Path(said["folder"]) / "model.safetensors").read_bytes() == bytes(BIG)


def test_one_that_never_ends_is_interrupted_and_the_next_run_fetches_only_what_lacks() -> None:
    big = {**FILES, "model.safetensors": bytes(BIG)}
    with hub.serve(big, breaks="model.safetensors", after=BIG - 9, stays_broken=True) as served:
        said = fetch(served=served)
        assert said["outcome"] == "interrupted" and "complete files are kept" in said["remedy"]
    with hub.serve(big) as served:
        assert fetch(served=served)["outcome"] == "found"
    assert "model.safetensors" in served.downloads and len(served.downloads) < len(FILES)


# without network


def test_offline_a_full_cache_is_all_that_is_needed() -> None:
    with hub.serve(FILES) as served:
        before = fetch(served=served)
    assert fetch(HF_HUB_OFFLINE="1") == before


def test_offline_an_empty_cache_is_told_with_the_command_that_fills_it() -> None:
    said = fetch("org/policy@v2", HF_HUB_OFFLINE="1")
    assert said["outcome"] == "offline_empty" and "`hf download org/policy --revision v2`" in said["remedy"]


def test_offline_a_partial_cache_is_told_with_the_files_that_it_lacks(cached: Path) -> None:
    for name in ("tokenizer.json", "model.safetensors"):
        (cached / name).unlink()
    said = fetch(HF_HUB_OFFLINE="1")
    assert said["outcome"] == "offline_partial"
    assert said["what"].endswith("the cached repository lacks model.safetensors, tokenizer.json")
    assert "fetches what is missing" in said["remedy"]


def test_offline_a_part_whose_repository_was_never_listed_is_judged_by_what_must_be_there(tmp_path: Path) -> None:
    cached = tmp_path / "hf" / "hub" / "models--org--policy"
    files.write_text(cached / "snapshots" / hub.COMMIT / "config.json", "{}")
    files.write_text(cached / "refs" / "main", hub.COMMIT)
    assert fetch(HF_HUB_OFFLINE="1")["what"].endswith(
        "lacks model.safetensors or adapter_model.safetensors, policy_preprocessor.json, policy_postprocessor.json"
    )
    said = fetch(kind="tokenizer", HF_HUB_OFFLINE="1")
    assert said["outcome"] == "offline_partial" and "tokenizer*" in said["what"]


DAMAGES = {"empty": b"", "cut": b"no", "same_size": b"NO WEIGHTS"}


SOME_DAMAGES = [("cut", True, "model.safetensors"), ("empty", True, "config.json"), ("same_size", False, "config.json")]
ALL_DAMAGES = itertools.product(DAMAGES, (True, False), ("model.safetensors", "config.json"))


@pytest.mark.parametrize(
    ("how", "listed", "name"),
    [pytest.param(*each, marks=[] if each in SOME_DAMAGES else pytest.mark.slow) for each in ALL_DAMAGES],
)
def test_a_file_of_the_cache_with_other_bytes_than_the_hubs_is_corrupt(
    cached: Path, name: str, how: str, listed: bool
) -> None:
    (cached / name).resolve().write_bytes(DAMAGES[how])
    if not listed:  # as an older client leaves its cache
        shutil.rmtree(cached.parent.parent / "trees")
    with hub.serve(FILES) as served:
        online = fetch(served=served)
    for said in (online, fetch(HF_HUB_OFFLINE="1")):
        assert said["outcome"] == "corrupt" and said["what"].endswith(name)
        assert "--force-download" in said["remedy"]


def test_weights_in_shards_are_whole_only_with_each_of_them(made: Made) -> None:
    shards = {f"model-0000{k}-of-00002.safetensors": WEIGHTS for k in (1, 2)}
    index = json.dumps({"weight_map": {f"layer.{k}": name for k, name in enumerate(shards)}}).encode()
    write_policy(made, "smolvla", vlm_model_name="org/policy", load_vlm_weights=True)
    with hub.serve({"config.json": b"{}", "model.safetensors.index.json": index, **shards}) as served:
        found = resource_of(look(made, served=served), "base_model")
        (Path(found["folder"]) / sorted(shards)[1]).unlink()
        said = look(made, HF_HUB_OFFLINE="1")
        shutil.rmtree(Path(found["folder"]).parent.parent / "trees")  # an older client's cache has no list of the files
        unlisted = look(made, HF_HUB_OFFLINE="1")
    outcomes = [resource_of(each, "base_model")["outcome"] for each in (said, unlisted)]
    assert (found["outcome"], outcomes) == ("found", ["offline_partial", "offline_partial"])


# preflight


def look(
    made: Made, *words: str, served: hub.Hub | None = None, script: str = LOOK_AT_THE_HUB, **environ: str
) -> dict[str, Any]:
    """The checks and resources of the campaign."""
    files.make_folder(made.layout.preflight)
    said = said_by(script, str(made.root), *words, **({"HF_ENDPOINT": served.address} if served else {}), **environ)
    rules = schema.load("preflight")["properties"]["resources"]["items"]
    for item in said["resources"]:
        assert item.keys() == set(rules["required"]) and item["outcome"] in rules["properties"]["outcome"]["enum"]
    return said


def resource_of(said: dict[str, Any], kind: str) -> dict[str, Any]:
    [found] = [item for item in said["resources"] if item["kind"] == kind]
    return dict(found)


def write_policy(made: Made, kind: str, tokenizer: str = "", **config: object) -> None:
    """Makes the campaign's checkpoint one of this type, which loads these things by name."""
    made.layout.settings.write_text(SETTINGS.replace('policy_type = "act"', f'policy_type = "{kind}"'))
    steps = [{"registry_name": "tokenizer_processor", "config": {"tokenizer_name": tokenizer}}] if tokenizer else []
    files.write_json(made.root / "checkpoints" / "fake" / "policy_preprocessor.json", {"steps": steps})
    files.write_json(made.root / "checkpoints" / "fake" / "config.json", {"type": kind, **config})


def test_a_policy_in_a_folder_is_on_record_with_config_processors_and_liberos_files(made: Made) -> None:
    said = look(made, script=LOOK)
    assert [(item["kind"], item["files"]) for item in said["resources"]] == [
        ("policy", 4),
        ("config", 1),
        ("processors", 2),
        ("assets", 585),
    ]
    assert {item["commit"] for item in said["resources"]} == {None}
    config = made.root / "checkpoints" / "fake" / "config.json"
    wanted = files.sha256(files.canonical({"config.json": files.sha256_file(config)}))
    found = resource_of(said, "config")
    assert (found["sha256"], found["bytes"]) == (wanted, config.stat().st_size)
    assert {item["status"] for item in said["checks"].values()} == {"pass"}


def test_tokenizer_and_base_model_are_found_by_commit_without_weights_and_again_offline(made: Made) -> None:
    write_policy(made, "smolvla", "org/policy", vlm_model_name="org/policy", load_vlm_weights=False)
    with hub.serve(FILES) as served:
        said = look(made, served=served)
    assert sorted(served.downloads) == sorted(FILES.keys() - {"model.safetensors"})
    for kind in ("tokenizer", "base_model"):
        found = resource_of(said, kind)
        assert (found["outcome"], found["commit"], found["files"]) == ("found", hub.COMMIT, 4)
        assert said["checks"][f"{kind}:org/policy"]["status"] == "pass"
    assert said["checks"]["offline"]["status"] == "pass"
    assert said["checks"]["offline"]["evidence"].startswith("2 of 2 repositories")


def test_weights_that_a_policy_loads_by_name_are_fetched(made: Made) -> None:
    write_policy(made, "smolvla", vlm_model_name="org/policy", load_vlm_weights=True)
    with hub.serve(FILES) as served:
        assert resource_of(look(made, served=served), "base_model")["files"] == len(FILES)
    assert "model.safetensors" in served.downloads


def test_weights_that_are_pickles_are_not_fetched(made: Made) -> None:
    write_policy(made, "smolvla", vlm_model_name="org/policy", load_vlm_weights=True)
    with hub.serve({"config.json": b"{}", "pytorch_model.bin": b"pickle"}) as served:
        said = look(made, served=served)
    assert served.downloads == ["config.json"] and resource_of(said, "base_model")["outcome"] == "refused"
    found = said["checks"]["base_model:org/policy"]
    assert found["status"] == "fail" and "lacks *model*.safetensors" in found["evidence"]


def test_a_tokenizer_that_brings_code_is_refused_unless_each_piece_is_trusted_by_name(made: Made) -> None:
    code = {"processing_x.py": b"", "tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": "processing_x.X"}}'}
    words = [f"org/policy:{word}" for word in ("processing_x.py", "tokenizer_config.json:auto_map")]
    write_policy(made, "act", "org/policy")
    with hub.serve(FILES | code) as served:
        refused = look(made, served=served)
        made.configure(f"[security]\ntrusted = {json.dumps(words)}")
        trusted = look(made, served=served)
    assert resource_of(refused, "tokenizer")["outcome"] == "refused"
    found = refused["checks"]["tokenizer:org/policy"]
    assert found["status"] == "fail" and all(f'["{word}"]' in found["remedy"] for word in words)
    assert trusted["checks"]["tokenizer:org/policy"]["status"] == "pass"


def test_a_tokenizer_that_does_not_come_is_on_record_with_its_outcome(made: Made) -> None:
    write_policy(made, "pi0", "org/policy")
    with hub.serve(FILES, gated=True) as served:
        said = look(made, served=served)
    assert (resource_of(said, "tokenizer")["outcome"], resource_of(said, "tokenizer")["folder"]) == ("gated", None)
    found = said["checks"]["tokenizer:org/policy"]
    assert (
        found["status"] == "fail"
        and "access to the repository is gated" in found["evidence"]
        and "licence" in found["remedy"]
    )


def test_rows_whose_cache_is_another_one_fail_the_offline_check(made: Made, tmp_path: Path) -> None:
    write_policy(made, "pi0", "org/policy")
    with hub.serve(FILES) as served:
        said = look(made, str(tmp_path / "other"), served=served)
    assert said["checks"]["tokenizer:org/policy"]["status"] == "pass"
    found = said["checks"]["offline"]
    assert found["status"] == "fail" and "org/policy (nothing instead of" in found["evidence"]
    assert "HF_HOME" in found["remedy"]


# torchvision's backbone


def test_a_backbone_that_cannot_be_fetched_fails_with_the_way_without_it(made: Made) -> None:
    write_policy(made, "act", pretrained_backbone_weights="ResNet18_Weights.IMAGENET1K_V1")
    said = look(made)
    assert resource_of(said, "backbone")["outcome"] == "unreachable"
    found = said["checks"]["base_model:ResNet18_Weights.IMAGENET1K_V1"]
    assert "resnet18-f37072fd.pth" in found["evidence"] and "null" in found["remedy"]


def test_a_backbone_is_found_only_if_its_bytes_are_those_that_its_name_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"weights"
    name = f"net-{files.sha256(content)[:8]}.pth"
    source = tmp_path / "site" / "torchvision" / "models" / "resnet.py"
    files.write_text(source, f'class Net_Weights(X):\n    V1 = Weights(\n        url="http://127.0.0.1:9/{name}",\n')
    files.write_text(source.parent.parent / "__init__.py", "")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)  # an imported one would be found first
    path = tmp_path / "cache" / "torch" / "hub" / "checkpoints" / name
    files.write_atomic(path, content)
    assert torchvision_weights.fetch("Net_Weights.V1") == path
    files.write_atomic(path, b"other")
    with pytest.raises(tracka_hub.Unresolved) as caught:
        torchvision_weights.fetch("Net_Weights.V1")
    assert caught.value.outcome == "unreachable"
    with pytest.raises(tracka_hub.Unresolved) as caught:
        torchvision_weights.fetch("Net_Weights.V2")
    assert caught.value.outcome == "missing"


# what policies load by name


LEROBOT = find_spec("lerobot")
DEFAULTS = [
    (kind, key, name)
    for table in (hub_dependencies.TOKENIZERS, hub_dependencies.BASE_MODELS)
    for kind, keys in table.items()
    for key, name in keys.items()
]


@pytest.mark.parametrize(("kind", "key", "name"), DEFAULTS)
def test_what_a_policy_loads_by_default_is_lerobots_default(kind: str, key: str, name: str) -> None:
    assert LEROBOT and LEROBOT.origin
    source = (Path(LEROBOT.origin).parent / "policies" / kind / f"configuration_{kind}.py").read_text()
    assert f'{key}: str = "{name}"' in source


def test_the_tokenizer_that_no_config_names_is_lerobots() -> None:
    assert LEROBOT and LEROBOT.origin
    for kind in ("pi0", "pi05"):
        source = (Path(LEROBOT.origin).parent / "policies" / kind / f"processor_{kind}.py").read_text()
        assert f'tokenizer_name="{hub_dependencies.PALIGEMMA}"' in source
    source = (Path(LEROBOT.origin).parent / "processor" / "tokenizer_processor.py").read_text()
    assert f'paligemma_tokenizer_name: str = "{hub_dependencies.PALIGEMMA}"' in source


# the page


def test_the_page_of_outcomes_is_what_the_code_says() -> None:
    page = (REPOSITORY / "docs" / "hub.md").read_text()
    lines = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", page.partition("## Outcomes")[2], re.MULTILINE)
    assert {outcome: (meaning, remedy) for outcome, meaning, remedy in lines} == OUTCOMES


def test_the_schema_knows_every_outcome() -> None:
    rules = schema.load("preflight")["properties"]["resources"]["items"]["properties"]
    assert set(rules["outcome"]["enum"]) == set(OUTCOMES)
