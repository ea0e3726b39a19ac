"""Shows which module imports which in tracka: the order of its packages, and the imports between them.

Usage: python tests/imports.py
"""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "tracka"
ORDER = (  # a module imports from its own package and those of earlier lines; the last line is tracka itself, the faces
    ("core",),
    ("install", "campaign", "statistics"),
    ("execution",),
    ("checkpoints",),
    ("engines",),
    ("preflight", "runs"),
    ("reporting",),
    ("gates",),
    ("report_page",),
    ("exports",),
    ("bundles",),
    ("",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
Edge = tuple[str, str]


def package(module: str) -> str:
    """Returns the package of a module, such as `runs` of `runs.run`; an empty string for a module in tracka itself."""
    return module.partition(".")[0] if "." in module else ""


def named(module: str) -> Iterator[str]:
    """Yields the names of what `module` imports, in functions too: modules, and names in modules, from tracka on."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ["tracka", *module.split(".")][: -node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (source, *(f"{source}.{alias.name}" for alias in node.names))


@cache
def siblings(module: str) -> frozenset[str]:
    """Returns the modules of tracka that `module` imports."""
    return frozenset(name.removeprefix("tracka.") for name in named(module)) & MODULES.keys()


def edges() -> list[Edge]:
    """Returns the imports of one module by another in another package."""
    pairs = ((module, other) for module in MODULES for other in sorted(siblings(module)))
    return [(module, other) for module, other in pairs if package(module) != package(other)]


def upward(found: list[Edge]) -> list[Edge]:
    """Returns those of the imports that do not go to an earlier line of the order."""
    return [(module, other) for module, other in found if LEVEL[package(other)] >= LEVEL[package(module)]]


def main() -> None:
    """Prints the imports that go upward, the order of the packages, and the number of imports and modules of each."""
    found = edges()
    wrong = upward(found)
    for module, other in wrong:
        print(f"upward: {module} imports {other}")
    print(" < ".join(", ".join(name or "tracka" for name in names) for names in ORDER))
    print(f"{len(found)} imports between packages, {len(wrong)} of them upward")
    for name in LEVEL:
        counts = Counter(package(other) for module, other in found if package(module) == name)
        print(
            f"{name or 'tracka'} imports {', '.join(f'{other} {count}' for other, count in counts.items()) or 'none'}"
        )
    folders = Counter(module.rpartition(".")[0] for module in MODULES if not module.endswith("__init__"))
    for folder, count in sorted(folders.items(), key=lambda item: (LEVEL[item[0].partition(".")[0]], item[0])):
        print(f"{count:4} {'/'.join(['tracka', *folder.split('.')]).rstrip('/')}")


if __name__ == "__main__":
    main()
