"""Secrets: which values of an environment are some, and that no stream passes one on."""

import json
import random
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from tracka.core import redaction
from tracka.core.redaction import MASK, Redactor

CANARY = "hf_canary0123456789"


def known(environ: Mapping[str, str]) -> set[str]:
    """The secrets of an environment whose user has not logged in to the hub."""
    return {value.decode() for value in redaction.secret_values({"HF_HOME": "/nowhere", **environ})}


def covered(text: bytes, secrets: list[bytes]) -> bytes:
    """`text` as it must be passed on, found out by looking at every byte."""
    starts = {
        index: max(len(word) for word in secrets if text.startswith(word, index))
        for index in range(len(text))
        if any(text.startswith(word, index) for word in secrets)
    }
    made, done = b"", 0
    for index in range(len(text)):
        if index in starts:
            made += MASK if index >= done else b""
            done = max(done, index + starts[index])
        made += text[index : index + 1] if index >= done else b""
    return made


def fed(text: bytes, secrets: list[bytes], sizes: random.Random) -> bytes:
    """What passes when `text` comes in chunks of any size."""
    redactor, made, at = Redactor(secrets), b"", 0
    while at < len(text):
        size = sizes.choice((0, 1, 2, 3, 5, 8, 40))
        made += redactor.feed(text[at : at + size])
        at += size
    return made + redactor.flush()


# which values are secrets


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "my_password", "AWS_SECRET_ACCESS_KEY", "SLURM_JWT"])
def test_a_variable_that_is_called_like_a_secret_is_one(name: str) -> None:
    assert known({name: CANARY}) == {CANARY}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOME", "/data/somebody"),
        ("HF_TOKEN", "short"),
        ("TOKENIZERS_PARALLELISM", "certainly"),
        ("HF_TOKEN_PATH", "/"),
    ],
)
def test_other_variables_short_values_and_places_are_none(name: str, value: str) -> None:
    assert known({name: value}) == set()


def test_the_password_of_a_url_is_a_secret_in_any_variable() -> None:
    environ = {"https_proxy": "http://user:long%40password@proxy:3128", "HF_ENDPOINT": "https://me:pw@mirror"}
    found = known(environ)
    assert {"long@password", "long%40password", "user:long%40password@", "me:pw@"} <= found
    assert not {"pw", "user", "me", "proxy"} & found


def test_a_url_without_a_user_holds_no_secret() -> None:
    assert known({"https_proxy": "http://proxy:3128", "INDEX": "https://git@host/x/y@z"}) == set()


def test_the_token_of_a_login_is_a_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{CANARY}\n")
    assert redaction.secret_values({"HF_HOME": str(tmp_path)}) == (CANARY.encode(),)
    assert redaction.secret_values({"HF_HOME": "/nowhere", "HF_TOKEN_PATH": str(tmp_path / "token")}) == (
        CANARY.encode(),
    )


@pytest.mark.parametrize(
    "value", ['with "quotes" in it', "ümläute und ß", "two\nlines of it", "back\\slash\\es", "a&b=c/d?e"]
)
def test_a_secret_is_known_in_a_url_and_in_json_too(value: str) -> None:
    found = known({"MY_SECRET": value})
    assert {value, quote(value, safe=""), json.dumps(value)[1:-1]} == found


def test_the_longest_comes_first() -> None:
    found = redaction.secret_values({"HF_HOME": "/nowhere", "A_KEY": "abcdefgh", "B_KEY": "abcdefghijkl"})
    assert found == (b"abcdefghijkl", b"abcdefgh")


# text


def test_text_and_whatever_it_is_made_of_is_redacted() -> None:
    words = f"ü\ud800 {CANARY}, {CANARY}\n"
    assert redaction.redact(words, [CANARY.encode(), b"\xff\xfe"]) == "ü\ud800 [redacted], [redacted]\n"
    assert redaction.redact("nothing", [CANARY.encode()]) == "nothing"


# streams


@pytest.mark.parametrize("seed", range(40))
def test_chunks_change_nothing_and_no_secret_is_passed_on(seed: int) -> None:
    sizes = random.Random(seed)
    letters = sizes.choice((b"ab", b"abc", b"abcdef"))
    for _ in range(50):
        secrets = [bytes(sizes.choices(letters, k=sizes.randint(2, 6))) for _ in range(sizes.randint(1, 4))]
        secrets += [word + secrets[0] for word in secrets[:1]]  # one that begins with another
        text = bytes(sizes.choices(letters, k=sizes.randint(0, 120)))
        made = fed(text, secrets, sizes)
        assert made == covered(text, secrets)
        assert not any(word in made.replace(MASK, b"|") for word in secrets)


def test_only_what_could_become_a_secret_is_held_back() -> None:
    redactor = Redactor([b"hf_canary"])
    assert redactor.feed(b"a line\n") == b"a line\n"
    assert redactor.feed(b"token=hf_can") == b"token="
    assert redactor.feed(b"dle\n") == b"hf_candle\n"
    assert redactor.feed(b"hf_can") == b""
    assert redactor.feed(b"ary!") == MASK + b"!"
    assert (redactor.feed(b"hf_"), redactor.flush(), redactor.flush()) == (b"", b"hf_", b"")


def test_an_endless_run_of_overlaps_is_one_and_is_not_kept() -> None:
    redactor = Redactor([b"aaaaaaaa"])
    made = b"".join(redactor.feed(b"a" * 5000) for _ in range(20))
    assert made + redactor.flush() == MASK


def test_without_secrets_everything_passes_at_once() -> None:
    assert Redactor([]).feed(b"abc") == b"abc"


def test_a_flood_of_text_is_no_burden() -> None:
    line = b"step 123 of 280, success 0.5: hf_ something key=value http://host/path\n"
    chunk, redactor = line * (65536 // len(line)), Redactor([b"hf_canary%020d" % number for number in range(8)])
    start = time.process_time()
    passed = sum(len(redactor.feed(chunk)) for _ in range(400))
    assert passed / (time.process_time() - start) > 50e6  # hundreds of MB/s; less where the machine is busy
