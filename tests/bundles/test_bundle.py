"""Bundles: one file of a campaign that anybody can verify, in the standards of others."""

import base64
import gzip
import html
import io
import json
import lzma
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import campaigns
import pytest
from campaigns import REPOSITORY, Made
from forger import Forger
from stored_campaign import campaign_copy

from tracka.bundles import bundle, verification
from tracka.bundles.bundle import BundleOptions
from tracka.core import files
from tracka.core.errors import UsageError

TOP = "smoke-libero-object"
REPEATED = [pytest.mark.slow, pytest.mark.repeated]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign that a real session on the real simulator left."""
    return campaign_copy(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def made(root: Path) -> Path:
    """Its bundle."""
    return bundle.write(root, BundleOptions(output=root.parents[1] / "bundle.tar"))


def members(path: Path) -> dict[str, bytes]:
    """Returns the files of a bundle by their names below its top folder."""
    with tarfile.open(path) as tar:
        found = {entry.name.removeprefix(f"{TOP}/"): tar.extractfile(entry) for entry in tar}
        return {name: content.read() for name, content in found.items() if content}


def verified(path: Path, key: Path | None = None) -> verification.Verification:
    with verification.opened(path) as bundle_file:
        return verification.verify(bundle_file, key)


def tracka(*words: object, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracka", *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )


# what a bundle is


def test_two_bundles_of_a_campaign_are_the_same_bytes_wherever_it_lies_and_whatever_its_files_times(
    made: Path, tmp_path: Path
) -> None:
    elsewhere = campaign_copy(tmp_path / "elsewhere")
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    again = bundle.write(elsewhere, BundleOptions(output=tmp_path / "again.tar"))
    assert again.read_bytes() == made.read_bytes()


def test_the_campaigns_files_are_in_it_byte_for_byte_and_no_weights_locks_or_pages_for_the_eye(
    root: Path, made: Path
) -> None:
    found = {name.removeprefix(f"data/tasks/{TOP}/"): content for name, content in members(made).items()}
    for name in ("configs/campaign.toml", "artifacts/runs/baseline_b1_e2/attempts/1/stderr.log", "results.md"):
        assert found[name] == (root / name).read_bytes()
    assert [name for name in found if re.search(r"locks/|checkpoints/|report\.html|\.lock$", name)] == []
    assert sum(name.endswith(".mp4") for name in found) == len(list(root.rglob("*.mp4"))) > 0


def test_what_the_bundle_adds_names_no_place(root: Path, made: Path) -> None:
    added = {name: content for name, content in members(made).items() if not name.startswith("data/tasks/")}
    assert {"bagit.txt", "data/bundle.json", "data/ro-crate-metadata.json", "attestations/test-result.json"} <= {*added}
    assert [name for name, content in added.items() if b"/srv/" in content or str(root).encode() in content] == []


def test_a_statement_names_the_manifest_the_checkpoint_and_what_was_accepted(made: Path) -> None:
    found = members(made)
    statement = json.loads(found["attestations/test-result.json"])
    digests = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
    assert digests["manifest-sha256.txt"] == files.sha256(found["manifest-sha256.txt"])
    assert "checkpoint checkpoints/six-of-ten" in digests
    assert statement["predicate"]["failedTests"] == []
    assert "row object_t2_b2_s7" in statement["predicate"]["passedTests"]


def test_thresholds_are_claims_of_an_eval_result_with_sample_size_and_pre_registration(tmp_path: Path) -> None:
    from forger import Forger

    forger = Forger(campaign_copy(tmp_path))
    settings = forger.layout.settings
    settings.write_text(settings.read_text() + "\n[verdict]\nthreshold = 0.2\nconfidence = 0.8\n")
    forger.register("2026-11-30T00:00:00Z")
    forger.seal()
    found = members(bundle.write(forger.root, BundleOptions(output=tmp_path / "demanding.tar")))
    predicate = json.loads(found["attestations/eval-result.json"])["predicate"]
    (claim,) = predicate["claims"]
    assert (claim["comparator"], claim["threshold"], claim["passed"]) == (">=", "0.2", True)
    assert predicate["sampleSize"] == 8
    assert predicate["preRegistration"]["value"] == files.read_json(forger.layout.preregistration)["sha256"]


def test_videos_are_left_out_by_a_flag_and_known_by_their_hashes(root: Path, made: Path, tmp_path: Path) -> None:
    small = bundle.write(root, BundleOptions(output=tmp_path / "small.tar", with_videos=False))
    assert small.stat().st_size < made.stat().st_size
    left_out = json.loads(members(small)["data/bundle.json"])["left_out"]
    assert len(left_out) == len(list(root.rglob("*.mp4")))
    found = verified(small)
    assert (found.verdict, found.findings) == ("accepted", [])
    assert any("videos show, which are left out" in words for words in found.unknown)


def test_a_redacted_copy_has_no_path_and_both_hashes_and_says_what_cannot_be_held(
    root: Path, made: Path, tmp_path: Path
) -> None:
    redacted = bundle.write(root, BundleOptions(output=tmp_path / "redacted.tar", redact=True))
    found = members(redacted)
    assert [name for name, content in found.items() if b"/srv/" in content] == []
    redaction = json.loads(found["data/bundle.json"])["redaction"]
    assert redaction["original_sha256"] == files.sha256_file(made)
    name = f"tasks/{TOP}/artifacts/runs/baseline_b1_e2/run_manifest.json"
    assert redaction["files"][name]["redacted_sha256"] == files.sha256(found[f"data/{name}"])
    assert redaction["files"][name]["original_sha256"] == files.sha256(members(made)[f"data/{name}"])
    told = verified(redacted)
    assert told.findings == []
    assert any(redaction["original_sha256"] in words for words in told.unknown)


def test_a_redacted_copy_of_a_campaign_that_was_not_accepted_is_not_accepted(tmp_path: Path) -> None:
    rejected = campaign_copy(tmp_path / "rejected")
    handoff = rejected / "artifacts" / "state" / "phase4_handoff.json"
    handoff.write_text(handoff.read_text().replace('"status": "pass"', '"status": "partial"'))
    told = verified(bundle.write(rejected, BundleOptions(output=tmp_path / "redacted.tar", redact=True)))
    assert told.verdict == "not accepted"
    assert [f"{finding.where}: {finding.what}" for finding in told.findings] == [
        "phase4: not accepted, as the files of this copy say"
    ]
    assert told.faults == []


OLD, USER = "checkpoints/six-of-ten", "wilhelmina"
HOME = "/" + f"home/{USER}"
FOLDER = f"{HOME}/Jürgen's new1/outputs"
FORMS = [
    f"read {FOLDER}/my_policy/model.safetensors\nnode {USER}-7 and run_{USER}_3\n",
    json.dumps({f"{FOLDER}/my_policy": f"a line\n{FOLDER}/my_policy"}),
    json.dumps(f"{FOLDER}/my_policy").replace("/", "\\/"),
    f"<a href='file://{quote(FOLDER)}/my_policy'>{html.escape(FOLDER)}/my_policy</a>",
    f"https://example.org/?at={quote(FOLDER, safe='')}%2Fmy_policy&also=%2fopt%2fhidden%2fplace",
    "a line\\n/opt/hidden/place and \\/opt\\/hidden\\/place",
]
HIDDEN = [HOME[:6].encode(), b"wilhelmina", b"gen's", b"new1/", b"hidden", b"%2Fhome", b"\\/" + b"home"]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign with two checkpoints of one name elsewhere, and the name of a user in its files and their names."""
    root = campaign_copy(tmp_path_factory.mktemp("private"))
    settings = root / "configs" / "campaign.toml"
    settings.write_text(re.sub(r"\[build\][^\[]*", "", settings.read_text()))
    for path in (each for each in root.rglob("*") if each.suffix in {".json", ".csv", ".md", ".log", ".toml"}):
        place = f"{FOLDER}/my_policy" if "object_t1_b1_s11" not in str(path) else f"{HOME}/old/my_policy"
        text = path.read_text().replace("/srv/user/", f"{HOME}/").replace('/srv/user"', f'{HOME}"')
        lines = text.replace("object_all_b1_s7", f"all_{USER}").splitlines(keepends=True)
        row = re.compile("^object_t1_b1_s11,")
        path.write_text(
            "".join(line.replace(OLD, f"{HOME}/old/my_policy" if row.match(line) else place) for line in lines)
        )
    for number, form in enumerate(FORMS):
        (root / "artifacts" / "preflight" / f"{USER}_{number}.{'yaml' if number % 2 else 'log'}").write_text(form)
    Forger(root).seal()
    return root


def test_a_redacted_copy_names_no_checkpoints_place_in_any_form_and_has_no_finding(
    private: Path, tmp_path: Path
) -> None:
    plain = bundle.write(private, BundleOptions(output=tmp_path / "plain.tar"))
    called = tracka("bundle", private, "--redact", "--output", tmp_path / "redacted.tar")
    assert called.returncode == 0, called.stderr
    content = (tmp_path / "redacted.tar").read_bytes()
    assert [word for word in HIDDEN if word in content] == []
    assert all(word in plain.read_bytes() for word in HIDDEN[:4])
    points = json.loads(members(tmp_path / "redacted.tar")["data/bundle.json"])["checkpoints"]
    assert sorted(points) == ["/REDACTED-2/my_policy", "/REDACTED/my_policy"]
    assert [*map(str, verified(tmp_path / "redacted.tar").findings)] == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.gz", gzip.compress(f"{FOLDER}/my_policy".encode())),
        ("log.xz", lzma.compress(f"{FOLDER}/my_policy".encode())),
        ("names.npy", b"\x93NUMPY\0" + FOLDER.encode("utf-32-le")),
        ("film.mp4", b"\0\0ftyp\0" + f"title {USER}\0".encode()),
        ("frame.png", b"\x89PNG\r\n\x1a\n\0\0\0\0zTXtpath\0\0" + zlib.compress(f"{FOLDER}/x".encode())),
        ("mail.txt", base64.b64encode(f"see {FOLDER}/my_policy".encode())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_name_that_cannot_be_replaced_keeps_a_redacted_copy_from_being_written(
    name: str, content: bytes, private: Path, tmp_path: Path
) -> None:
    extra = private / "artifacts" / "preflight" / name
    extra.write_bytes(content)
    try:
        with pytest.raises(UsageError) as caught:
            bundle.write(private, BundleOptions(output=tmp_path / "redacted.tar", redact=True))
    finally:
        extra.unlink()
    assert [finding.where.rpartition("/")[2] for finding in caught.value.findings] == [name]
    assert [*tmp_path.iterdir()] == []


# what verify finds


@pytest.fixture
def flipped(made: Path, tmp_path: Path) -> Callable[[int, int], bool]:
    """Returns a function that says whether a bundle is refused in which one byte has other bits."""
    data, path = bytearray(made.read_bytes()), tmp_path / "flipped.tar"

    def is_found(position: int, bits: int) -> bool:
        data[position] ^= bits
        path.write_bytes(data)
        data[position] ^= bits
        try:
            with verification.opened(path) as bundle_file:
                return next(verification.changed_bytes(bundle_file.archive), None) is not None
        except UsageError:
            return True

    return is_found


@pytest.mark.parametrize(
    "count", [20, pytest.param(1000, marks=[*REPEATED, pytest.mark.timeout(1200)])], ids=["few", "thousand"]
)
def test_every_single_changed_byte_is_found(count: int, made: Path, flipped: Callable[[int, int], bool]) -> None:
    drawn = random.Random(count)
    size = made.stat().st_size
    places = [0, size - 1, *(drawn.randrange(size) for _ in range(count - 2))]
    assert [place for place in places if not flipped(place, drawn.randrange(1, 256))] == []


def test_bundle_and_verify_are_commands_with_exit_codes(root: Path, made: Path, tmp_path: Path) -> None:
    ended = tracka("bundle", root, "--output", tmp_path / "own.tar")
    assert (ended.returncode, ended.stdout) == (0, f"{tmp_path / 'own.tar'}\n"), ended.stderr
    following = f"next: tracka verify {tmp_path / 'own.tar'}, which anybody can run, offline"
    assert ended.stderr.splitlines() == ["verdict: accepted", following]
    assert (tmp_path / "own.tar").read_bytes() == made.read_bytes()
    sound = tracka("verify", tmp_path / "own.tar", cwd=tmp_path)
    assert sound.returncode == 0 and sound.stdout.endswith("verdict: accepted\n"), sound.stdout + sound.stderr
    assert "whether the simulator ran" in sound.stdout
    data = bytearray(made.read_bytes())
    at = data.index(b'"success_rate": 0.5')
    data[at : at + 19] = b'"success_rate": 0.9'
    (tmp_path / "edited.tar").write_bytes(data)
    edited = tracka("verify", tmp_path / "edited.tar")
    assert edited.returncode == 1 and "the file is not the one that manifest-sha256.txt lists" in edited.stderr


def test_an_archive_that_is_overwritten_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "own.tar").touch()
    ended = tracka("bundle", root, "--output", tmp_path / "own.tar")
    assert f"{tmp_path / 'own.tar'} was there before: it is overwritten" in ended.stderr


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("nothing.tar", "there is no such file", "Name the file that `tracka bundle CAMPAIGN` wrote"),
        ("folder", "this is a folder, not a bundle", "Name the file that `tracka bundle CAMPAIGN` wrote"),
        ("campaign", "this is the folder of a campaign, not a bundle", "Write its bundle first: tracka bundle "),
        ("notes.txt", "this is not a bundle: a bundle is a tar archive", "Name the file that"),
        ("empty", "this is not a bundle: a bundle is a tar archive", "Name the file that"),
    ],
)
def test_what_is_not_a_bundle_is_called_what_it_is_and_exits_with_2(
    made: Path, tmp_path: Path, name: str, what: str, remedy: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("some notes\n" * 100)
    (tmp_path / "empty").touch()
    files.write_text(tmp_path / "campaign" / "configs" / "campaign.toml", "")
    with pytest.raises(UsageError) as refused, verification.opened(tmp_path / name):
        pass
    (finding,) = refused.value.findings
    assert finding.where == str(tmp_path / name) and finding.what.startswith(what)
    assert finding.remedy.startswith(remedy)


def test_a_bundle_that_was_cut_is_called_damaged(made: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.tar").write_bytes(made.read_bytes()[: made.stat().st_size // 2])
    with pytest.raises(UsageError, match="the archive is damaged"), verification.opened(tmp_path / "cut.tar"):
        pass


def hostile(name: str = f"{TOP}/data/x", kind: bytes = tarfile.REGTYPE, link: str = "") -> Iterator[tarfile.TarInfo]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    yield entry


HOSTILE = {
    "a link": lambda: hostile(kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "a hard link": lambda: hostile(kind=tarfile.LNKTYPE, link=f"{TOP}/bagit.txt"),
    "a pipe": lambda: hostile(kind=tarfile.FIFOTYPE),
    "a way out": lambda: hostile(f"{TOP}/../../out"),
    "a place": lambda: hostile("/tmp/out"),
    "two files of one name": lambda: [*hostile(), *hostile()],
    "two folders at the top": lambda: [*hostile(), *hostile("other/x")],
    "a file at the top": lambda: hostile("x"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_could_write_elsewhere_is_refused_with_2(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as tar:
        for entry in HOSTILE[kind]():
            tar.addfile(entry, io.BytesIO())
    with pytest.raises(UsageError, match="the archive holds what is never in a bundle"), verification.opened(path):
        pass
    assert not Path("/tmp/out").exists()


def test_a_bundle_that_names_a_place_outside_of_itself_is_refused(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "outside.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in members(made).items():
            edited = (
                content.replace(b'"campaign": "tasks/', b'"campaign": "../../')
                if name.endswith("bundle.json")
                else content
            )
            entry = tarfile.TarInfo(f"{TOP}/{name}")
            entry.size = len(edited)
            tar.addfile(entry, io.BytesIO(edited))
    with pytest.raises(UsageError, match="a place outside of the bundle"), verification.opened(path):
        pass


def test_a_sound_bundle_of_a_campaign_that_was_not_accepted_says_so_and_why_and_a_changed_one_reads_otherwise(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    below: Made = campaigns.below_threshold(tmp_path_factory.getbasetemp())
    file = bundle.write(below.root, BundleOptions(output=tmp_path / "below.tar"))
    found = verified(file)
    assert (found.verdict, found.faults) == ("not accepted", [])
    assert any("the success rate is 0.500, but the threshold is 0.750" in finding.what for finding in found.findings)
    assert found.rejected == ["row wide_b4_e4: the success rate is 50.0%, below the threshold of 75%"]
    told = tracka("verify", file)
    reason, bundle_line, verdict = told.stdout.splitlines()[-3:]
    assert reason == f"rejected {found.rejected[0]}"
    assert (told.returncode, told.stderr, verdict) == (1, "", "verdict: not accepted")
    assert bundle_line.startswith("bundle: sound.") and "was not accepted, for the reasons above" in bundle_line
    file.write_bytes(file.read_bytes().replace(b'"success_rate": 0.5', b'"success_rate": 0.9'))
    changed = tracka("verify", file)
    assert changed.returncode == 1 and "bundle: not sound." in changed.stdout
    assert "Ask for the bundle again" in changed.stderr


def test_a_campaign_that_ended_in_preflight_has_a_sound_bundle_that_says_so(root: Path, tmp_path: Path) -> None:
    ended = campaign_copy(tmp_path / "ended")
    for folder in ("runs", "summary"):
        shutil.rmtree(ended / "artifacts" / folder)
    for page in ("results.md", "runbook.md"):
        (ended / page).unlink()
    for name in ("phase3_handoff.json", "phase4_handoff.json", "phase5_handoff.json", "rows"):
        path = ended / "artifacts" / "state" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = ended / "artifacts" / "preflight" / "preflight.json"
    value = json.loads(report.read_text())
    value |= {"status": "fail", "blocker": "no GPU"}
    report.write_text(json.dumps(value))
    handoff = ended / "artifacts" / "state" / "phase2_handoff.json"
    value = json.loads(handoff.read_text())
    handoff.write_text(json.dumps(value | {"status": "blocked", "notes": ["no GPU"]}))
    found = verified(bundle.write(ended, BundleOptions(output=tmp_path / "ended.tar")))
    assert found.verdict == "not accepted" and found.rejected
    own = [str(finding) for finding in found.faults if not finding.where.endswith(".md")]  # pages are as they were
    assert own == []


# signatures


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_signed_bundle_is_verified_by_the_public_key_and_no_other_is(
    root: Path, made: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    signed = bundle.write(root, BundleOptions(output=tmp_path / "signed.tar", sign_key=private))
    envelope = json.loads(members(signed)["attestations/test-result.dsse.json"])
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    found = verified(signed, public)
    assert found.findings == [] and any("signed by the key" in words for words in found.held)
    assert ["is not signed" in finding.what for finding in verified(made, public).findings] == [True]
    again = tmp_path / "again"
    again.mkdir()
    other = Path(str(public).replace("key.pub", "again/key.pub"))
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    unrelated = Ed25519PrivateKey.generate().public_key()
    other.write_bytes(unrelated.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert ["is not signed by this key" in finding.what for finding in verified(signed, other).findings] == [True]


def test_a_file_that_is_no_key_is_refused(root: Path, made: Path, tmp_path: Path) -> None:
    ended = tracka("bundle", root, "--output", tmp_path / "x.tar", "--sign-key", REPOSITORY / "README.md")
    assert ended.returncode == 2 and "no private key that can sign" in ended.stderr
    assert not (tmp_path / "x.tar").exists()
    ended = tracka("verify", made, "--key", REPOSITORY / "README.md")
    assert ended.returncode == 2 and "the file holds no public key" in ended.stderr
