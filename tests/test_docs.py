"""What the documents promise is there, and what is there is documented."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from pydantic import BaseModel

from engine.config import Configuration, _inner_model

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def commands() -> Iterator[tuple[str, click.Command]]:
    from engine.cli.main import app

    def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        subcommands = getattr(command, "commands", {})
        if not subcommands or getattr(command, "invoke_without_command", False):
            yield path, command
        for name, inner in subcommands.items():
            yield from walk(f"{path} {name}", inner)

    yield from walk("shardwright", typer.main.get_command(app))


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_and_option_is_in_the_reference(path: str, command: click.Command) -> None:
    heading = f"### `{path}`"
    assert heading in REFERENCE
    section = REFERENCE.split(heading, 1)[1].split("\n### ", 1)[0]
    for name in options(command):
        assert f"`{name}`" in section, f"{path}: option {name} is not documented"


def options(command: click.Command) -> list[str]:
    """Told by their kind's name: typer's options are no longer instances of click's."""
    kept = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    return [max(option.opts, key=len) for option in kept]


def test_there_are_options_to_check() -> None:
    assert "--usage" in {name for _, command in commands() for name in options(command)}


def keys(table: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in table.model_fields.items():
        inner = _inner_model(field.annotation)
        if inner is not None and name != "credentials" and inner.__name__ != "SecretSource":
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("key", sorted(keys(Configuration)))
def test_every_configuration_key_is_in_the_reference(key: str) -> None:
    assert f"`{key}`" in REFERENCE


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=str)
def test_relative_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_no_tracked_file_names_an_index_or_a_machine_path() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.splitlines()
    if not names:
        pytest.skip("not a git checkout")
    forbidden = re.compile(
        "|".join(
            ("pypi" + r"\.org", "files" + r"\.pythonhosted", "registry" + r"\.npmjs", "/ro" + "ot/", "/wo" + "rk/")
        )
    )
    found = []
    for name in names:
        path = ROOT / name
        if path.suffix in {".png", ".pt", ".parquet", ".gz"} or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if forbidden.search(line):
                found.append(f"{name}:{number}")
    assert found == []


def test_every_dependency_earns_its_line() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = (ROOT / "docs" / "design" / "dependencies.md").read_text(encoding="utf-8")
    for requirement in project["dependencies"]:
        name = re.split(r"[\[<>=!~ ]", requirement)[0]
        assert name in listed, f"{name} has no line in docs/design/dependencies.md"
