"""The layout of the project: which module may import which, how long they are, and where the tests lie."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    ["files", "clock", "dist", "memory", "precision", "ops"],
    ["images", "plots", "downloads", "networks"],
    ["losses", "augment", "checkpoint", "data", "features", "latents", "video"],
    ["training", "metrics", "inversion", "convert", "shards"],
    ["analysis"],
    ["cli", "studio"],
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
MAX_LINES = 400
TESTS_OF_NO_MODULE = {
    "test_floors.py",
    "test_readme.py",
    "test_packaging.py",
    "ops/kernels/gpu/test_wiring.py",
    "ops/kernels/cpu/test_wiring.py",
}

MODULES = sorted((ROOT / "styleforge").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def module_name(path: Path) -> str:
    """``styleforge/ops/shapes.py`` -> ``styleforge.ops.shapes``; a package is named by its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def package(name: str) -> str:
    """The package or module right below ``styleforge``; empty for ``styleforge`` itself."""
    return name.partition(".")[2].partition(".")[0]


def imports(source: str, name: str, is_package: bool = False) -> set[str]:
    """All modules of the project that a module imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # from . import x
                parts = name.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, node.module] if node.module else parts)
            # "from styleforge import images" imports a module; "from styleforge.images import save" a name of one
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "styleforge" else {base}
    return {module for module in found if module.split(".")[0] == "styleforge"}


def breaches(importer: str, imported: set[str]) -> list[str]:
    """What a module imports that its floor forbids."""
    own = package(importer)
    if not own:
        return sorted(imported)  # styleforge itself imports nothing
    others = {package(module) for module in imported} - {own, "", "__version__"}
    return sorted(other for other in others if FLOOR[other] >= FLOOR[own])


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_from_lower_floors_alone(path):
    name = module_name(path)
    imported = imports(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")
    unknown = {package(module) for module in imported | {name}} - FLOOR.keys() - {"", "__version__", "__main__"}
    assert not unknown, f"give {', '.join(unknown)} a floor in {Path(__file__).name} and in docs/architecture.md"
    if package(name) != "__main__":
        assert not breaches(name, imported)


def test_the_test_of_floors_finds_what_it_looks_for():
    source = (
        "import styleforge.cli.main\ndef f():\n    from styleforge.training import train; from styleforge import data"
    )
    found = imports(source, "styleforge.networks.x")
    assert found == {"styleforge.cli.main", "styleforge.training", "styleforge.data"}
    assert breaches("styleforge.networks.x", found) == ["cli", "data", "training"]
    assert breaches("styleforge.metrics.fid", {"styleforge.training", "styleforge.metrics.kid"}) == ["training"]
    assert breaches("styleforge.metrics.fid", {"styleforge.features", "styleforge.images"}) == []
    assert imports("from . import y\nfrom ..ops import z", "styleforge.networks.x") == {
        "styleforge.networks",
        "styleforge.ops",
    }
    assert imports("from . import y", "styleforge.networks", is_package=True) == {"styleforge.networks"}
    assert imports("import torch, os.path", "styleforge.networks.x") == set()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, styleforge; print(sorted({'torch', 'numpy', 'PIL', 'click', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_test_lies_where_its_module_lies(path):
    inside = path.relative_to(ROOT / "tests")
    if str(inside) in TESTS_OF_NO_MODULE:
        return
    module = ROOT / "styleforge" / inside.with_name(inside.name.removeprefix("test_"))
    package_folder = module.with_suffix("")
    assert module.is_file() or (package_folder / "__init__.py").is_file(), f"{inside} tests no module of that place"


def test_arguments_and_exits_are_left_to_the_command_line():
    for path in MODULES:
        if package(module_name(path)) in ("cli", "studio"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("exit", "quit", "sys.exit", "os._exit"), f"{path}:{node.lineno}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
                assert not {"argparse", "click"} & set(names), f"{path}:{node.lineno}"
