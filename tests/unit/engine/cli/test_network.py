"""``shardwright network`` against a real server on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import ExitCode
from providers.network.conformance import suite
from providers.network.conformance.base import Case, require
from tests.command import InProcess
from tests.contract.provider_contract import SandboxControl, running_server


@pytest.fixture(scope="module")
def harbor() -> Iterator[SandboxControl]:
    with running_server("providers.sandbox.networks", "--name", "harbor") as server:
        yield server


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token.txt"
    file.write_text("sandbox\n")
    return file


def test_a_real_network_is_judged(command: InProcess, harbor: SandboxControl, token: Path) -> None:
    told = command("network", "check", harbor.url, "--token-file", token, "--output", "json", "--examples", 0)
    assert told.code == ExitCode.OK, told.err
    results = {result["name"]: result for result in told.data["results"]}
    assert results["hold expiry"]["outcome"] == "passed"
    assert results["second-price rule"]["outcome"] == "skipped"
    assert all(result["expected"] and result["seen"] for result in results.values())
    assert "✔ event stream" in told.err


def test_a_failure_is_shown_and_the_exit_code_is_one(
    command: InProcess, harbor: SandboxControl, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Case("a rule", "it is kept", lambda _: require(False, "it is broken") or "")
    monkeypatch.setattr(suite, "all_cases", lambda: (broken,))
    told = command("network", "check", harbor.url, "--token-file", token, "--examples", 0)
    assert told.code == ExitCode.ERROR
    for text in ("✘", "a rule", "it is kept", "it is broken", "1 failed"):
        assert text in told.out


def test_what_cannot_be_asked(command: InProcess, tmp_path: Path, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPEN_CAPACITY_TOKEN", raising=False)
    command("network", "check", "http://127.0.0.1:9").refused(ExitCode.USAGE, "no token", "--token-file")
    empty = tmp_path / "empty"
    empty.write_text("")
    assert command("network", "check", "http://127.0.0.1:9", "--token-file", empty).code == ExitCode.USAGE
    assert command("network", "check", "http://127.0.0.1:9", "--token-file", tmp_path / "none").code == ExitCode.USAGE
    assert command("network", "check", "ftp://tiny.test", "--token-file", token).code == ExitCode.USAGE
    command("network", "check", "http://127.0.0.1:9", "--token-file", token).refused(
        ExitCode.PROVIDER, "does not answer"
    )


def test_the_description_is_printed_and_nothing_else(command: InProcess) -> None:
    told = command("network", "describe")
    assert json.loads(told.out)["openapi"].startswith("3.1")
    assert told.err == ""
