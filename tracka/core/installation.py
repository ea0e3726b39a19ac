"""Says from where this Track A runs, from a checkout or as an installed package, and what is to be found there.

A checkout has the gates, the lock and the pages at its top; an installed package has them inside itself. Standard
library only: the set-up runs this module before anything is installed.
"""

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
IS_CHECKOUT = not (PACKAGE / "acceptance").is_dir()  # a wheel brings the gates inside the package
CHECKOUT = PACKAGE.parent
LOCK = "requirements.lock"
SMOKE = "smoke-libero-object"
UVX = "archive-v0"  # the folder of uv's cache that holds the environments of uvx, which uv removes at any time
IS_UVX = UVX in Path(sys.prefix).parts
# The command that makes the locked environment.
SETUP = (
    "make setup"
    if IS_CHECKOUT
    else "tracka setup --venv .venv && source .venv/bin/activate"
    if IS_UVX
    else "tracka setup"
)


def lock_folder() -> Path:
    """Returns the folder of requirements.lock: the checkout, or the installed package's data."""
    return CHECKOUT if IS_CHECKOUT else PACKAGE / "install" / "data"


def fixtures() -> Path:
    """Returns the folder of the stand-in policies and the programs that build them."""
    return CHECKOUT / "fixtures" if IS_CHECKOUT else PACKAGE / "fixtures"


def smoke_configs() -> Path:
    """Returns the folder with the definition of the embedded campaign."""
    return (CHECKOUT / "tasks" / SMOKE if IS_CHECKOUT else PACKAGE / "smoke") / "configs"


def page(name: str) -> str:
    """Returns where the reader finds a page of the documentation, such as `docs/tiers.md`."""
    return f"docs/{name}" if IS_CHECKOUT else str(PACKAGE / "docs" / name)
