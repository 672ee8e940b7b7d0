"""`python -m scripts.house`: files and lines per room of the house, its circles and its upward arrows.

Every import counts: at the top of a file, inside a function, under TYPE_CHECKING. A table's strings do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "foretaste"
# Each room may use those further down; rooms of one line do not know each other.
LAYERS = (
    ("cli",),
    ("testing",),
    ("api",),
    ("audits",),
    ("attacks", "defences", "probes"),
    ("pretrain",),
    ("features",),
    ("heads",),
    ("encoders", "data"),
    ("images", "runtime"),
    ("statistics",),
    ("progress", "plugins"),
    ("record", "method", "tables", "user_modules"),
    ("entries",),
    ("errors", "version"),
)
# A second staircase from the command line and the public functions down to the records, without torch.
PAPER = (
    ("cli",),
    ("api",),
    ("studies",),
    ("report",),
    ("statistics",),
    ("progress",),
    ("record", "method", "tables"),
    ("entries",),
    ("errors", "version"),
)
DOOR = "foretaste"
"""The package's own `__init__`: it names what is public, lazily, and everybody may ask it for the version."""


def sources(package: Path = PACKAGE) -> dict[str, Path]:
    """Files by module, such as `foretaste.audits.spec`; a package by its `__init__`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows(files: dict[str, Path]) -> dict[str, set[str]]:
    """For each module the modules of the house that it imports, wherever in the file it does."""
    return {module: set(_imported(module, path, files)) - {module} for module, path in files.items()}


def _imported(module: str, path: Path, files: dict[str, Path]) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:  # a name of the package's is itself, or stands in its `__init__`
                yield from [name for name in (f"{base}.{alias.name}", base) if name in files][:1]


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Modules that reach each other: the strongly connected components of more than one."""
    reached = {module: _reached(module, graph) for module in graph}
    return {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in graph
        if module in reached[module]
    }


def _reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for module in graph.get(ahead.pop(), set()) - found - {DOOR}:
            found.add(module)
            ahead.append(module)
    return found


def upward(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Arrows between rooms that do not go down either staircase, and those of rooms that stand on none."""
    return {
        (module, other)
        for module, others in graph.items()
        if module != DOOR
        for other in others
        if other != DOOR and room(module) != room(other) and room(other) not in below(room(module))
    }


def room(module: str) -> str:
    """The first name inside the package."""
    return module.split(".")[1] if "." in module else module


def below(name: str) -> set[str]:
    """Rooms that a room may use."""
    found: set[str] = set()
    for staircase in (LAYERS, PAPER):
        for step, rooms in enumerate(staircase):
            if name in rooms:
                found |= {lower for layer in staircase[step + 1 :] for lower in layer}
    return found


def lines(path: Path) -> int:
    """Of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def main() -> None:
    """Print the plan."""
    files = sources()
    graph = arrows(files)
    rooms: dict[str, list[int]] = {}
    for path in files.values():
        package = path.parent.relative_to(PACKAGE.parent).as_posix()
        rooms.setdefault(package, []).append(lines(path))
    for name, lengths in sorted(rooms.items()):
        print(f"{name:38} {len(lengths):4} files {sum(lengths):6} lines, longest {max(lengths)}")
    print(f"{'all':38} {len(files):4} files {sum(map(sum, rooms.values())):6} lines")
    found, wrong = circles(graph), upward(graph)
    print(f"circles: {len(found)}, of {sum(map(len, found))} files")
    for circle in sorted(map(sorted, found)):
        print("  " + ", ".join(circle))
    print(f"upward arrows: {len(wrong)}")
    for one, other in sorted(wrong):
        print(f"  {one} -> {other}")


if __name__ == "__main__":
    main()
