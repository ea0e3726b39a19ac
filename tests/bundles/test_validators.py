"""The validators that others wrote for the standards of a bundle, each in a fresh environment of its own."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from stored_campaign import campaign_copy

from tracka.bundles import bundle
from tracka.bundles.bundle import BundleOptions

UV = Path(sys.executable).with_name("uv")
STATEMENTS = """
import sys
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
for path in sys.argv[1:]:
    Statement.copy_from_pb(json_format.Parse(open(path).read(), statement_pb2.Statement())).validate()
print("valid")
"""
# The validator asks the web for the context of RO-Crate; rocrate has one on disk.
CRATE = """
import email.message, io, pathlib, sys, urllib.request
import requests, rocrate
context = (pathlib.Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()
class Response(io.BytesIO):
    status = code = status_code = 200
    def __init__(self, url):
        super().__init__(context)
        self.url, self.headers, self.content, self.text = url, email.message.Message(), context, context.decode()
        self.headers["Content-Type"], self.ok = "application/ld+json", True
    geturl = lambda self: self.url
    info = lambda self: self.headers
    getcode = lambda self: 200
    json = lambda self: __import__("json").loads(context)
    raise_for_status = lambda self: None
urlopen = lambda request, *args, **kwargs: Response(request if isinstance(request, str) else request.full_url)
urllib.request.urlopen = urlopen
import rdflib._networking
rdflib._networking.urlopen = urlopen
requests.Session.request = lambda self, method, url, *args, **kwargs: Response(url)
requests.Session.send = lambda self, request, **kwargs: Response(request.url)
from rocrate_validator import models, services
settings = services.ValidationSettings(
    rocrate_uri=sys.argv[1], profile_identifier="ro-crate-1.1", requirement_severity=models.Severity.REQUIRED
)
for issue in (result := services.validate(settings)).get_issues():
    print(issue.check.identifier, issue.message)
print("valid" if not result.get_issues() else "invalid")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the validators."""
    folder = tmp_path_factory.mktemp("validators") / "venv"
    subprocess.run([UV, "venv", "--python", Path(sys.executable).resolve(), folder], check=True, capture_output=True)
    packages = ["bagit", "in-toto-attestation", "roc-validator", "rocrate", "setuptools<81"]
    command = [UV, "pip", "install", "--python", folder / "bin" / "python", *packages]
    installed = subprocess.run(command, capture_output=True, text=True)
    if "Failed to fetch" in installed.stderr or "error sending request" in installed.stderr:
        pytest.skip("no package index can be reached")
    assert installed.returncode == 0, installed.stderr
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, unpacked."""
    folder = tmp_path_factory.mktemp("bag")
    file = bundle.write(campaign_copy(folder), BundleOptions(output=folder / "bundle.tar"))
    with tarfile.open(file) as tar:
        tar.extractall(folder / "bag", filter="data")
    return folder / "bag" / "smoke-libero-object"


@pytest.mark.slow
def test_it_is_a_bag(python: Path, bag: Path) -> None:
    ended = subprocess.run([python, "-m", "bagit", "--validate", bag], capture_output=True, text=True)
    assert ended.returncode == 0 and "is valid" in ended.stderr, ended.stderr


@pytest.mark.slow
def test_its_statements_are_in_totos(python: Path, bag: Path) -> None:
    statements = sorted((bag / "attestations").glob("*-result.json"))
    assert statements
    ended = subprocess.run([python, "-c", STATEMENTS, *statements], capture_output=True, text=True)
    assert ended.stdout == "valid\n", ended.stderr


@pytest.mark.slow
def test_its_payload_is_a_crate(python: Path, bag: Path) -> None:
    ended = subprocess.run([python, "-c", CRATE, bag / "data"], capture_output=True, text=True)
    assert ended.stdout.endswith("valid\n") and "invalid" not in ended.stdout, ended.stdout + ended.stderr[-2000:]
