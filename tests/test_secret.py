"""Secrets: which are known, and that no cut of a stream lets one through."""

import random
from pathlib import Path

import pytest

from tracka import secret
from tracka.secret import Redactor


def passed_on(secrets: tuple[bytes, ...], *chunks: bytes) -> bytes:
    redactor = Redactor(secrets)
    return b"".join(map(redactor.feed, chunks)) + redactor.flush()


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "db_password", "SLURM_JWT"])
def test_a_value_is_a_secret_by_its_name(name: str) -> None:
    assert secret.known({name: "canary-value", "HOME": "/nowhere"}) == (b"canary-value",)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "PATH", "USER"])
def test_other_values_are_none(name: str) -> None:
    assert secret.known({name: "canary-value", "HOME": "/nowhere"}) == ()


def test_a_short_value_is_none() -> None:
    assert secret.known({"KEY": "true", "HOME": "/nowhere"}) == ()


def test_a_password_in_a_url_is_one_in_both_spellings() -> None:
    found = secret.known({"https_proxy": "http://me:p%40ss-canary@proxy:8080", "HOME": "/nowhere"})
    assert set(found) == {b"p%40ss-canary", b"p@ss-canary", b"p%2540ss-canary"}


@pytest.mark.parametrize("variable", ["HF_TOKEN_PATH", "HF_HOME", "HOME"])
def test_the_hubs_token_is_read_where_its_client_would(tmp_path: Path, variable: str) -> None:
    places = {"HF_TOKEN_PATH": "t", "HF_HOME": "token", "HOME": ".cache/huggingface/token"}
    path = tmp_path / places[variable]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("hf_canarycanary\n")
    value = str(path if variable == "HF_TOKEN_PATH" else tmp_path)
    assert secret.known({variable: value, **({} if variable == "HOME" else {"HOME": "/nowhere"})}) == (
        b"hf_canarycanary",
    )


def test_a_file_that_a_variable_names_is_no_secret(tmp_path: Path) -> None:
    assert secret.known({"SSL_KEY_FILE": str(tmp_path), "HOME": "/nowhere"}) == ()


def test_text_without_secrets_is_passed_on_as_it_is() -> None:
    data = random.Random(0).randbytes(100_000)
    assert passed_on((b"canary-one",), data[:777], data[777:]) == data
    assert passed_on((), data) == data


def test_what_cannot_be_a_beginning_does_not_wait() -> None:
    redactor = Redactor((b"canary-one",))
    assert redactor.feed(b"a line\n") == b"a line\n"
    assert redactor.feed(b"so can") == b"so "
    assert redactor.feed(b"not") == b"cannot"


@pytest.mark.parametrize("seed", range(20))
def test_a_secret_is_found_wherever_the_stream_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    secrets = (b"abababab", b"babacaba-long", b"canary\n\xff\x00", b"cabcab12")
    words = [*secrets, b"ab", b"c", b"\n", b"baba", b"canary", b"x" * 50]
    text = b"".join(chance.choice(words) for _ in range(500))
    cuts = sorted(chance.sample(range(len(text)), 200))
    pieces = [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found = passed_on(secrets, *pieces)
    assert not any(word in found for word in secrets)
    assert found == passed_on(secrets, text)


def test_a_longer_secret_goes_before_one_that_it_begins_with() -> None:
    assert passed_on((b"canary-1", b"canary-1-and-more"), b"<canary-1-and", b"-more>") == b"<[redacted]>"


def test_text_that_is_no_utf8_is_redacted_too() -> None:
    assert secret.redact("caf\udce9 canary-one", (b"canary-one",)) == "caf\udce9 [redacted]"
