"""Secrets: which values of an environment are some, and that no stream passes one on."""

import base64
import html
import json
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from tracka.core import files, redaction
from tracka.core.redaction import MASK, Redactor

CANARY = "canary0123456789x"  # not in the form of a known token, by which it would be found anywhere
NO_LOGIN = {"HF_HOME": "/nowhere", "NETRC": "/nowhere"}


def known(environ: Mapping[str, str]) -> set[str]:
    """The secrets of an environment whose user has not logged in to the hub, but for those in base64."""
    values = {value.decode() for value in redaction.secret_values({**NO_LOGIN, **environ})}
    return values - {form for value in values for form in in_base64(value)}


def in_base64(value: str) -> set[str]:
    """A value in base64 after 0, 1 and 2 other bytes, without the characters that its neighbours decide too."""
    encoded = [base64.b64encode(bytes(before) + value.encode()).decode().rstrip("=") for before in range(3)]
    cores = {encoded[0][: len(value.encode()) * 8 // 6], *(_core(encoded[n], n, value) for n in (1, 2))}
    return cores | {core.replace("+", "-").replace("/", "_") for core in cores}


def _core(encoded: str, before: int, value: str) -> str:
    return encoded[before + 1 : (before + len(value.encode())) * 8 // 6]


def shown(environ: Mapping[str, str], text: str) -> str:
    """What a file of a harness with these variables holds of `text`."""
    return redaction.redact(text, redaction.secret_values({**NO_LOGIN, **environ}))


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
    assert known({"HF_HOME": str(tmp_path)}) == {CANARY}
    assert known({"HF_TOKEN_PATH": str(tmp_path / "token")}) == {CANARY}


def test_the_password_of_a_netrc_file_is_a_secret(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {CANARY}\n")
    assert known({"NETRC": str(tmp_path / "netrc")}) == {
        CANARY,
        f"user:{CANARY}",
        f"user%3A{CANARY}",
        f"user%3a{CANARY}",
    }


def test_a_token_file_that_is_no_file_stops_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("token", "binary", "."):
        assert known({"HF_TOKEN_PATH": str(tmp_path / name)}) == set()


@pytest.mark.parametrize(
    "value", ['with "quotes" in it', "ümläute und ß", "two\nlines of it", "back\\slash\\es", "a&b=c/d?e"]
)
def test_a_secret_is_known_in_a_url_and_in_json_too(value: str) -> None:
    found = known({"MY_SECRET": value})
    assert {value, quote(value, safe=""), json.dumps(value)[1:-1], html.escape(value)} <= found


def test_the_longest_comes_first() -> None:
    found = redaction.secret_values({**NO_LOGIN, "A_KEY": "abcdefgh", "B_KEY": "abcdefghijkl"})
    assert [*found] == sorted(found, key=lambda value: (-len(value), value))
    assert {b"abcdefghijkl", b"abcdefgh"} <= {*found}


# secrets without `://`

PLACES = {
    "proxy": ("HTTPS_PROXY", f"user:{CANARY}@proxy.example:3128"),
    "proxy among others": ("NO_PROXY", f"localhost,user:{CANARY}@proxy:3128"),
    "proxy with an @ in its password": ("http_proxy", "user:canary@0123456789@proxy:3128"),
    "index": ("PIP_INDEX_URL", f"https://user:{CANARY}@mirror/simple"),
    "second index": ("PIP_EXTRA_INDEX_URL", f"https://a.example/simple https://{CANARY}@b.example/simple"),
    "DSN": ("DB", f"host=h port=5432 user=u password={CANARY} dbname=d"),
    "quoted DSN": ("DB", f"host=h password='{CANARY}' dbname=d"),
    "connection string": ("STORE", f"AccountName=a;AccountKey={CANARY};EndpointSuffix=x"),
    "flag": ("PIP_OPTIONS", f"--retries 5 --password {CANARY} --quiet"),
    "flag with =": ("WGETRC_OPTIONS", f"--http-password={CANARY}"),
    "npm": ("NPMRC", f"//registry.example/:_authToken={CANARY}"),
    "npm, one word": ("NPM_CONFIG", f"_auth = {CANARY}"),
    "JSON": ("SETTINGS", json.dumps({"user": "u", "api_key": CANARY, "n": 1})),
    "YAML": ("SETTINGS", f"user: u\nclient-secret: {CANARY}\n"),
    "netrc": ("NETRC_CONTENT", f"machine h login u password {CANARY}"),
    "header": ("GIT_HEADER", f"Authorization: Bearer {CANARY}"),
    "other header": ("CURL_HEADER", f"X-Api-Key: {CANARY}"),
    "basic header": ("HEADER", f"Authorization: Basic {base64.b64encode(f'user:{CANARY}'.encode()).decode()}"),
    "cookie": ("HEADER", f"Cookie: lang=en; sid={CANARY}"),
    "cookie variable": ("MY_COOKIE", f"sid={CANARY}; lang=en"),
    "AWS": ("AWS", f"[default]\naws_access_key_id = A\naws_secret_access_key = {CANARY}"),
    "query": ("URL", f"https://host/blob?sv=1&sig={CANARY}&se=2"),
    "query of one word": ("URL", f"https://host/map?q=1&key={CANARY}#top"),
    "token as the user of an address": ("MIRROR", f"git+https://{CANARY}@git.example/a.git"),
    "flag of curl": ("CURL_OPTIONS", f"--silent -u user:{CANARY} --fail"),
    "long flag of curl": ("CURL_OPTIONS", f"--proxy-user=user:{CANARY}"),
    "sshpass": ("GIT_SSH_COMMAND", f"sshpass -p {CANARY} ssh"),
    "dict": ("SETTINGS", str({"secret_key": CANARY, "n": 1})),
    "private key": ("PEM", f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n-----END OPENSSH PRIVATE KEY-----"),
    "name": ("PGPASSWORD", CANARY),
    "short name": ("MYSQL_PWD", CANARY),
    "passphrase": ("GPG_PASSPHRASE", CANARY),
    "token of a known form": ("NOTES", f"use hf_{'a1' * 17} there"),
}
OTHER_SECRETS = {"proxy with an @ in its password": "canary@0123456789", "token of a known form": "hf_" + "a1" * 17}


@pytest.mark.parametrize("place", PLACES)
def test_a_credential_is_found_wherever_it_stands_in_a_variable(place: str) -> None:
    name, value = PLACES[place]
    secret = OTHER_SECRETS.get(place, CANARY)
    in_a_header = base64.b64encode(f"user:{secret}".encode()).decode()
    for text in (value, secret, quote(secret, safe=""), in_a_header):
        said = shown({name: value}, text)
        assert MASK.decode() in said and not {secret, quote(secret, safe=""), in_a_header} & {said}
        assert secret not in said


@pytest.mark.parametrize("before", ["", "u:", "us:", "usr:"])
def test_a_secret_is_hidden_in_base64_wherever_it_begins(before: str) -> None:
    encoded = base64.b64encode(f"{before}{CANARY}".encode()).decode()
    assert MASK.decode() in shown({"HF_TOKEN": CANARY}, f"Basic {encoded}\n")


@pytest.mark.parametrize("change", [str.upper, str.lower])
def test_a_secret_with_other_characters_is_hidden_in_each_way_to_encode_them(change: Callable[[str], str]) -> None:
    password = "pass/word+of him"
    encoded = re.sub("%..", lambda found: change(found.group()), quote(password, safe=""))
    for environ in ({"MY_PASSWORD": password}, {"http_proxy": f"user:{quote(password, safe='')}@proxy:3128"}):
        for form in (password, encoded, encoded.replace("%20", "+")):
            assert shown(environ, f"<{form}>") == "<[redacted]>"


def test_a_short_password_is_hidden_with_its_user_alone() -> None:
    environ = {"http_proxy": "me:pw1@proxy:3128"}
    assert shown(environ, "via me:pw1@proxy:3128, and pw1 of me") == "via [redacted]proxy:3128, and pw1 of me"


ORDINARY = {
    "PATH": "/usr/local/bin:/usr/bin:/opt/x@2/bin",
    "MANPATH": "man:/opt/python@3/share",
    "IMAGE": "registry.example/python:3.12@sha256:0123456789abcdef",
    "REMOTE": "git@github.com:somebody/lerobot.git",
    "CONTACT": "mailto:somebody@example.org",
    "MAX_TOKENS": "16777216",
    "TOKEN_LIMIT_TEXT": "optional",
    "DB_PASSWORD": "password",
    "OPTIONS": "--no-password --verbose --token-file tokens.txt max_tokens=16777216 keyboard=german",
    "PS1": "\\u@\\h:\\w$ ",
    "LS_COLORS": "rs=0:di=01;34:*.tar=01;31",
    "GIT_AUTHOR_NAME": "Somebody Else",
    "XDG_SESSION_TYPE": "wayland-session",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_words_numbers_and_paths_are_left(name: str) -> None:
    assert known({name: ORDINARY[name]}) == set()


def test_what_a_manifest_keeps_of_a_variable_has_no_password() -> None:
    for text in ("user:secret@proxy:3128", "http://user:secret@proxy:3128"):
        assert files.without_password(f"{text} x").endswith("proxy:3128 x")
        assert "secret" not in files.without_password(text)


def test_a_long_variable_is_no_burden() -> None:
    for text in ("pass" * 30_000, "a:b@" * 30_000, "://" * 40_000, "token token " * 10_000, "login x " * 15_000):
        start = time.process_time()
        known({"LONG": text})
        assert time.process_time() - start < 5


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
