"""Checks whether this host reaches the Hugging Face hub, and what the hub's client would be allowed to read.

Guarantees: one request without a token, bounded in time; a token is never read or shown, only where it comes from.
"""

import os
import urllib.error
import urllib.request
from pathlib import Path

from ..core import escaping, files
from ..core.check import Check, advisory_check
from ..core.errors import shortened
from ..execution import environment

ENDPOINT = "https://huggingface.co"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub/constants.py reads them
ANSWER_SECS = 8.0
REMEDY = (
    "Without a network, name checkpoints that are folders here and run `export HF_HUB_OFFLINE=1`, so that nothing "
    "waits for the hub; behind a proxy, set HTTPS_PROXY; for a mirror, set HF_ENDPOINT"
)


def check() -> Check:
    """Returns the check `hub`, which warns where the hub is to be asked and does not answer."""
    endpoint = os.environ.get("HF_ENDPOINT") or ENDPOINT
    offline = [name for name in OFFLINE if os.environ.get(name, "").upper() in TRUE]
    problem = "" if offline else why_unreachable(endpoint)
    asked = f"{', '.join(offline)} set: the hub is not asked" if offline else problem or "answers"
    evidence = f"{files.without_password(endpoint)}: {asked}; {token_place()}; cache {environment.hf_home()}"
    return advisory_check("hub", not problem, evidence, REMEDY)


def why_unreachable(endpoint: str) -> str:
    """Returns why a request to `endpoint` got no answer of its own, or an empty text; a refusal is an answer, too."""
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=ANSWER_SECS):
            return ""
    except urllib.error.HTTPError as error:
        return f"answers with status {error.code}" if error.code >= 500 or error.code == 407 else ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"cannot be reached ({escaping.line(shortened(files.without_password(str(reason))))})"


def token_place() -> str:
    """Returns where the hub's client finds a token, in words, without the token."""
    named = next((name for name in TOKENS if os.environ.get(name)), "")
    if named:
        return f"a token is in {named}"
    stored = Path(os.environ.get("HF_TOKEN_PATH") or Path(environment.hf_home()) / "token")
    if stored.is_file():
        return f"a token is in {stored}"
    return "no token (`hf auth login` stores one; only gated and private repositories need it)"
