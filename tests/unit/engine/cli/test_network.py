"""``shardwright network`` against a real server on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.errors import ExitCode
from engine.store.database import Database
from engine.store.provider_keys import ProviderKeys
from providers.network.conformance import suite
from providers.network.conformance.base import Case, require
from tests.command import InProcess
from tests.contract.provider_contract import SandboxControl, running_server
from tests.small_configuration import GOOD


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


# -- keys


@pytest.fixture
def configuration(tmp_path: Path, harbor: SandboxControl, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARBOR_TOKEN", "sandbox")
    file = tmp_path / "shardwright.toml"
    network = f"""[[providers]]
name = "harbor"
kind = "network"
account = "shardwright"
regions = ["harbor-eu"]
endpoint = "{harbor.url}"
credentials.token = {{ env = "HARBOR_TOKEN" }}

"""
    before, after = GOOD.split("[[providers]]")[0], GOOD[GOOD.index("[[pools]]") :]
    state = f'\n[state]\ndirectory = "{tmp_path / "state"}"\n'
    file.write_text(before + network + after + state)
    return file


def _keys(command: InProcess, configuration: Path) -> list[dict[str, object]]:
    told = command("network", "keys", "--config", configuration, "--output", "json")
    assert told.code == ExitCode.OK, told.err
    found: list[dict[str, object]] = told.data
    return found


def _harbor_offers(command: InProcess, configuration: Path) -> tuple[int, list[str]]:
    told = command("offers", "--config", configuration, "--output", "json")
    refused = [one["reason"] for one in json.loads(told.out)["refused"] if one["provider"] == "harbor"]
    return sum(offer["provider"] == "harbor" for offer in told.data), refused


def test_a_changed_key_is_refused_until_it_is_accepted(command: InProcess, configuration: Path, tmp_path: Path) -> None:
    (new,) = _keys(command, configuration)
    assert (new["provider"], new["taken"], new["why"]) == ("harbor", True, "first meeting")
    assert _harbor_offers(command, configuration) == (4, [])
    store, old = Database(f"sqlite:///{tmp_path / 'state' / 'control.sqlite'}"), "o" * 43
    try:
        ProviderKeys(store, SystemClock()).accept("harbor", [old])
        count, reasons = _harbor_offers(command, configuration)
        assert count == 0
        assert {reason.partition(":")[0] for reason in reasons} == {"wrong key"}
        next_command = reasons[0].rpartition("shardwright ")[2].split()
        standing = {key["thumbprint"]: (key["published"], key["taken"]) for key in _keys(command, configuration)}
        assert standing == {new["thumbprint"]: (True, False), old: (False, True)}
        told = command(*next_command, "--config", configuration)
        assert told.code == ExitCode.OK, told.err
        assert f"before by {old}" in told.err
        assert _harbor_offers(command, configuration) == (4, [])
    finally:
        store.dispose()


def test_what_cannot_be_accepted(command: InProcess, configuration: Path) -> None:
    accept = ("network", "accept", "--config", configuration)
    command(*accept, "nobody", "k" * 43).refused(ExitCode.USAGE, "no provider nobody", "harbor")
    command(*accept, "harbor", "k" * 43).refused(ExitCode.USAGE, "does not publish", "network keys")
    (key,) = _keys(command, configuration)
    text = configuration.read_text()
    pin = f'name = "harbor"\nsigning_keys = ["{key["thumbprint"]}"]'
    configuration.write_text(text.replace('name = "harbor"', pin))
    assert [one["why"] for one in _keys(command, configuration)] == ["pinned"]
    command(*accept, "harbor", str(key["thumbprint"])).refused(
        ExitCode.USAGE, "pinned", "providers.harbor.signing_keys"
    )
    assert _harbor_offers(command, configuration) == (4, [])
    configuration.write_text(text.replace('name = "harbor"', 'name = "harbor"\nsigning_keys = ["' + "k" * 43 + '"]'))
    count, reasons = _harbor_offers(command, configuration)
    assert count == 0
    assert "providers.harbor.signing_keys does not name" in reasons[0]
