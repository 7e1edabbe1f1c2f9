"""Imports point one way, and the heavy ones stay out of the command's start."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "engine", "forecasting", "lab", "policies", "providers", "stacks")
COMPOSITION = ("engine.app", "engine.demo", "engine.cli")
"""Where concrete classes may be named: the composition root, the demo that plays it, the commands that call them."""
SEAMS = ("providers.base", "providers.registry", "forecasting.base", "stacks.base")


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def inside(module: str, *folders: str) -> bool:
    return any(module == folder or module.startswith(folder + ".") for folder in folders)


def offenders(where: tuple[str, ...], forbidden: tuple[str, ...], but: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{name} imports {imported}"
        for name, path in modules()
        if inside(name, *where)
        for imported in imports(path)
        if inside(imported, *forbidden) and not inside(imported, *but)
    ]


def test_there_is_something_to_check() -> None:
    assert len(list(modules())) > 50


def test_the_model_imports_nothing_of_ours() -> None:
    assert offenders(("engine.model",), PACKAGES, but=("engine.model",)) == []


def test_errors_and_clock_stand_alone() -> None:
    assert offenders(("engine.errors", "engine.clock"), PACKAGES) == []


def test_seams_know_only_values() -> None:
    assert offenders(SEAMS, PACKAGES, but=("engine.model", "engine.errors", "engine.clock", *SEAMS)) == []


def test_only_the_composition_root_names_concrete_classes() -> None:
    concrete = ("providers", "forecasting", "stacks", "lab")
    found = offenders(("engine",), concrete, but=SEAMS)
    assert [line for line in found if not inside(line.split()[0], *COMPOSITION)] == []


def test_concrete_parts_do_not_reach_into_each_other() -> None:
    assert offenders(("forecasting",), ("providers", "stacks", "agent", "policies", "lab")) == []
    assert offenders(("policies",), ("providers", "forecasting", "agent")) == []
    assert offenders(("agent",), ("providers", "stacks", "forecasting", "policies")) == []
    core = ("engine.model", "engine.errors", "engine.clock")
    assert offenders(("agent",), ("engine",), but=core) == []


def test_nothing_outside_the_sandbox_knows_it() -> None:
    allowed = (*COMPOSITION, "providers.sandbox")
    found = [
        f"{name} imports {imported}"
        for name, path in modules()
        if not inside(name, *allowed)
        for imported in imports(path)
        if inside(imported, "providers.sandbox")
    ]
    assert found == []


def test_only_the_driver_imports_the_automation_api() -> None:
    found = [
        name
        for name, path in modules()
        for imported in imports(path)
        if inside(imported, "pulumi.automation") and name not in ("stacks.driver", "stacks.engine_binary")
    ]
    assert found == []


@pytest.mark.parametrize(
    "heavy", ["torch", "pulumi", "boto3", "pandas", "pyarrow", "duckdb", "dbos", "moto", "plotly", "ray", "sklearn"]
)
def test_heavy_parts_do_not_load_with_the_command(heavy: str) -> None:
    code = f"import engine.cli.main, sys; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_provider_name_in_a_condition_outside_its_module() -> None:
    kinds = {"aws", "gcp", "azure"}
    own = ("providers", "stacks", "policies", "engine.billing", "agent")
    found = []
    for name, path in modules():
        if inside(name, *own):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                literals = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                if literals & kinds:
                    found.append(f"{name}:{node.lineno}")
    assert found == []
