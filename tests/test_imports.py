"""Arrows run one way: no import runs back up, and no files import each other in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from reporting.folder import REPOSITORY

# The lowest first: each may import from itself and from those before it.
LAYERS = ("datamodules", "reporting", "lightning_modules", "running", "hydra_plugins", "train", "benchmarks", "tests")


def modules_under(root: Path) -> dict[str, Path]:
    """Dotted name → file of every module of the layers."""
    files = [file for layer in LAYERS for file in [*(root / layer).rglob("*.py"), root / f"{layer}.py"]]
    named = {".".join(file.relative_to(root).with_suffix("").parts): file for file in files if file.is_file()}
    return {name.removesuffix(".__init__"): file for name, file in named.items()}


def imported(file: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules that a file imports, inside functions and under TYPE_CHECKING too.

    `from package import module` imports the module; `from package import name` the package's `__init__`.
    """
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in modules else node.module for name in inner)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def arrows_of(root: Path) -> dict[str, set[str]]:
    """Each module, and the modules of the project that it imports."""
    modules = modules_under(root)
    return {name: {other for other in imported(file, modules) if other in modules} for name, file in modules.items()}


def layer(module: str) -> int:
    return LAYERS.index(module.split(".")[0])


def wrong_arrows(root: Path) -> list[str]:
    """What runs back up, and the first circle, in words."""
    arrows = arrows_of(root)
    up = [f"{name} imports {other}" for name, own in arrows.items() for other in own if layer(other) > layer(name)]
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        up.append(f"a circle: {' ← '.join(error.args[1])}")
    return up


def test_no_import_runs_back_up_and_none_in_a_circle():
    assert len(arrows_of(REPOSITORY)) > 100, "all of the project was read"
    assert not wrong_arrows(REPOSITORY)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("reporting/a.py", "def f():\n    from running.b import g", "reporting.a imports running.b"),
        ("reporting/a.py", "if TYPE_CHECKING:\n    import running.b", "reporting.a imports running.b"),
        ("datamodules/a.py", "from datamodules import c", "a circle: datamodules.a ← datamodules.c ← datamodules.a"),
        ("reporting/a.py", "from reporting import c", ""),
    ],
)
def test_a_wrong_import_is_named(file, text, said, tmp_path):
    for name in ("datamodules/__init__.py", "reporting/__init__.py", "reporting/c.py", "running/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "datamodules/c.py").write_text("from datamodules import a")
    (tmp_path / file).write_text(text)
    found = wrong_arrows(tmp_path)
    assert found == ([said] if said else []) or (said.startswith("a circle") and found[0].startswith("a circle"))


def test_commands_answer_before_torch_is_imported():
    """--help, and every mistake found at once, must not wait for torch."""
    asked = "import sys, train; print(sorted({'torch', 'lightning', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", asked], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
