"""The builder of a full-size random pi0: its tokenizer, its processors, its file of weights, lerobot's loader.

The model here is a small one, of lerobot's own code with smaller numbers: lerobot knows no small pi0.
"""

from pathlib import Path

import pytest
import torch
from campaigns import Made
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi0.modeling_pi0 import PI0Policy
from safetensors import safe_open

from fixtures import program, random_pi0, small_pi0
from tracka.checkpoints import checkpoint, code_safety, hub_dependencies, normalizer, weights
from tracka.core.lerobot_facts import SUITE_TASKS
from tracka.preflight import device_placement, policy_features, policy_resources

NAMES = ("get_gemma_config", "CONFIG_MAPPING", small_pi0.VLM)
LARGE = {name: getattr(modeling_pi0, name) for name in NAMES}  # lerobot's own
TEXT = "pick up the milk and place it in the basket"


@pytest.fixture(scope="module")
def small() -> pytest.MonkeyPatch:
    """lerobot's table of variants with small ones in it, for this module."""
    with pytest.MonkeyPatch.context() as patch:
        small_pi0.put(patch)
        yield patch


@pytest.fixture(scope="module")
def built(small: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "pi0"
    random_pi0.build(folder, random_pi0.config(10, 256))
    return folder


def test_lerobots_own_loader_takes_every_tensor(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = PI0Policy.from_pretrained(str(built))
    assert "All keys loaded successfully!" in capsys.readouterr().out
    with safe_open(built / "model.safetensors", "pt") as file:
        for key in file.keys():  # noqa: SIM118
            assert torch.equal(policy.state_dict()[key], file.get_tensor(key)), key


def test_weights_are_random_and_norms_change_nothing(built: Path) -> None:
    model = PI0Policy.from_pretrained(str(built)).model
    vision = model.paligemma_with_expert.paligemma.model.vision_tower.vision_model
    language = model.paligemma_with_expert.gemma_expert.model
    assert (vision.post_layernorm.weight == 1).all() and (language.norm.weight == 0).all()
    assert model.state_proj.weight.std().item() == pytest.approx(random_pi0.SPREAD, rel=0.1)
    assert (model.state_proj.bias == 0).all()


def test_the_same_words_give_the_same_bytes(built: Path, small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    random_pi0.build(tmp_path / "again", random_pi0.config(10, 256))
    for name in ("model.safetensors", "config.json", "tokenizer/tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (built / name).read_bytes(), name


def test_its_processors_need_no_hub_and_make_tokens(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = PreTrainedConfig.from_pretrained(str(built))
    before, after = make_pre_post_processors(policy_cfg=config, pretrained_path=str(built))
    images = {key: torch.rand(1, 3, 256, 256) for key in random_pi0.IMAGES}
    made = before({**images, random_pi0.STATE: torch.full((1, 8), 2.0), "task": [TEXT]})
    assert made["observation.language.tokens"][0, :10].min() > 3  # words, none of them unknown
    assert made["observation.language.attention_mask"].sum() == 10
    assert (made[random_pi0.STATE] == 2).all()
    assert after(torch.ones(1, 7)).flatten().tolist() == pytest.approx([random_pi0.ACTION_SPREAD] * 7)


def test_track_a_finds_it_safe_fitting_and_whole(built: Path, made: Made) -> None:
    point = checkpoint.resolve(str(built), made.root)
    assert point.policy_type == "pi0" and not code_safety.policy_faults(built)
    assert hub_dependencies.named_dependencies(point) == [
        hub_dependencies.NamedDependency("tokenizer", str(built / "tokenizer"))
    ]
    evidence, found = policy_resources._fetch_dependency(
        policy_resources.ResourceCollector(), made.spec, hub_dependencies.named_dependencies(point)[0]
    )
    assert found[0].outcome == "found" and str(built / "tokenizer") in evidence
    for check in (weights.check, normalizer.check, policy_features.check, device_placement.check):
        assert check(made.spec, str(built)).status == "pass"


def test_where_track_a_builds_it_the_tokenizer_is_named_where_it_will_lie(tmp_path: Path) -> None:
    assert program.at_last(tmp_path / ".pi0.partial") == tmp_path / "pi0"
    assert program.at_last(tmp_path / "pi0") == tmp_path / "pi0"


@pytest.mark.usefixtures("libero")
def test_the_tokenizer_has_a_token_for_every_word_of_a_task() -> None:
    """All 130 of them, as lerobot's environment gives them."""
    from lerobot.envs.libero import _get_suite

    texts = [task.language for name in SUITE_TASKS for task in _get_suite(name).tasks]
    made = random_pi0.tokenizer(random_pi0.words())
    assert len(texts) == 130 and not [text for text in texts if made.unk_token_id in made(text + "\n").input_ids]
    assert made("juggle the milk").input_ids[0] == made.unk_token_id


def test_the_full_size_has_four_billion_parameters_and_takes_no_memory_to_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LARGE.items():
        monkeypatch.setattr(modeling_pi0, name, value)
    size = sum(tensor.nbytes for tensor in random_pi0.shapes(random_pi0.config(50, 256)).values())
    assert size == 7839075392  # bf16, the vision tower in float32, the embedding written once
