"""Rooms: imports point down one written list, lazy ones and those for type checkers too."""

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "unteach"

ROOMS = (
    "__main__",
    "cli",
    "demo",
    "try_page",
    "study",
    "baselines",
    "__init__",
    "mistakes",
    "pipeline",
    "report",
    "comparison",
    "evaluation",
    "scenarios",
    "probes",
    "training",
    "judges",
    "organism",
    "objectives",
    "scoring",
    "results",
    "data",
    "prompts",
    "models",
    "progress",
    "text",
    "disk",
    "stats",
    "signals",
    "errors",
)
"""From top to bottom: a room may import what stands below it, and itself."""
LOOSE = {"__init__", "__main__", "errors", "stats", "progress", "signals"}


def imports() -> list[tuple[str, str]]:
    """Every import of one module of the package in another, as names without the package's own."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: imports by whole names only"
                inside = node.module == "unteach"
                names = [f"unteach.{alias.name}" for alias in node.names] if inside else [str(node.module)]
            found += [(module, name.removeprefix("unteach.")) for name in names if name.split(".")[0] == "unteach"]
    return found


def room_of(module: str) -> str:
    first = module.split(".")[0]
    return first if first in ROOMS else "__init__"  # a public name of the package itself


def test_every_file_has_a_room() -> None:
    there = {path.stem if path.suffix else path.name for path in SOURCE.iterdir() if path.suffix in ("", ".py")}
    assert there - {"__pycache__"} == set(ROOMS)
    assert {path.stem for path in SOURCE.glob("*.py")} == LOOSE
    assert len([path for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"]) <= 26


def test_imports_point_down() -> None:
    up = [
        f"{module} -> {name}" for module, name in imports() if ROOMS.index(room_of(module)) > ROOMS.index(room_of(name))
    ]
    assert up == []


def test_no_circles_inside_a_room() -> None:
    modules = {".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
    needs: dict[str, set[str]] = {module: set() for module in modules}
    for module, name in imports():
        target = (
            name
            if name in modules
            else f"{name}.__init__"
            if f"{name}.__init__" in modules
            else name.rpartition(".")[0]
        )
        if target in modules and target != module:
            needs[module].add(target)
    while True:
        free = {module for module, wanted in needs.items() if not wanted & needs.keys()}
        if not free:
            break
        needs = {module: wanted for module, wanted in needs.items() if module not in free}
    assert sorted(needs) == []
