"""Bad input on a running sandbox: a clear error, the right exit code, and nothing lost.

One sandbox serves all of it. ``estate`` is a control plane with a node at AWS and one at harbor; what a refused command
must not touch is compared before and after.
"""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import pi, sin
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.app.embedded import free_port
from engine.store.database import Database
from engine.store.state_lock import hold_state
from providers.sandbox import supervisor
from providers.sandbox.configuration import PoolChoice, write_configuration
from providers.sandbox.contract import FaultMode
from providers.sandbox.control import SandboxClient
from providers.sandbox.info import SandboxInfo
from providers.sandbox.processes import all_pids, environment_value, tagged
from providers.sandbox.teardown import leftovers
from tests.command import EXECUTABLE, NOBODY, InProcess, Told, shardwright

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
needs_root = pytest.mark.root

PROVIDERS = ("aws", "gcp", "azure", "harbor", "agora")
LEDGER = PoolChoice(id="ledger", component="db", risk_class="bronze", peak_shards=1, providers=("aws",))
WEB = PoolChoice(id="web", component="api", risk_class="bronze", peak_shards=1, providers=("harbor",))


@pytest.fixture(scope="module")
def usage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two weeks of one series with a daily cycle, until now."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=14)
    rows = [f"web,{(start + timedelta(hours=h)).isoformat()},{100 + 60 * sin(pi * h / 12):.2f}" for h in range(336)]
    path = tmp_path_factory.mktemp("usage") / "usage.csv"
    path.write_text("\n".join(["series_id,timestamp,value", *rows, ""]))
    return path


@dataclass(frozen=True)
class World:
    """A running sandbox, and the port on which its nodes reach whichever control plane runs."""

    info: SandboxInfo
    port: int
    usage: Path

    def configuration(
        self,
        folder: Path,
        name: str,
        *,
        pools: tuple[PoolChoice, ...] = (WEB,),
        providers: Sequence[str] = ("aws", "harbor"),
        changes: Mapping[str, str] | None = None,
    ) -> Path:
        """A file with a state of its own in ``folder``; ``changes``: text -> what stands there instead."""
        sold = tuple(provider for provider in self.info.providers if provider.name in providers)
        path = write_configuration(
            self.info.model_copy(update={"providers": sold}),
            folder / "shardwright.toml",
            name=name,
            state_directory=folder / "state",
            control_port=self.port,
            pools=pools,
            usage=self.usage,
        )
        text = path.read_text()
        usual = {"max_provider_share = 0.34": "max_provider_share = 1.0", "budget_seconds = 20": "budget_seconds = 0.1"}
        for old, new in {**usual, **(changes or {})}.items():
            assert old in text, old
            text = text.replace(old, new)
        path.write_text(text)
        return path

    @contextmanager
    def fault(self, mode: FaultMode, *providers: str) -> Iterator[None]:
        client = SandboxClient(self.info)
        try:
            for provider in providers:
                client.set_fault(provider, mode, 120)
            yield
        finally:
            for provider in providers:
                client.set_fault(provider, FaultMode.NONE, 0)
            client.close()

    def nodes_of(self, name: str) -> list[str]:
        """Nodes that run for the control plane of that name: what was bought, whoever remembers it."""
        client = SandboxClient(self.info)
        found = sorted(node.node for node in client.status().nodes if node.node.startswith(f"{name}-"))
        client.close()
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, usage: Path) -> Iterator[World]:
    port = free_port()
    state = tmp_path_factory.mktemp("sandbox")
    info = supervisor.start(state, seed=7, providers=PROVIDERS, control_ports=(port,))
    try:
        yield World(info, port, usage)
    finally:
        assert supervisor.stop(state) == []


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.delenv("SHARDWRIGHT_CONFIG", raising=False)
    return InProcess(capfd)


@dataclass
class Estate:
    """A control plane that has run a round; its file may be changed for a test."""

    file: Path
    first: Told = field(default_factory=lambda: Told(-1, "", ""))

    def facts(self, command: InProcess) -> dict[str, Any]:
        """What must still be there after a refused command."""
        names = ("nodes", "shards", "plan")
        return {name: command(name, "--config", self.file, "--output", "json").data for name in names}

    def changed(self, old: str, new: str) -> Path:
        text = self.file.read_text()
        assert old in text
        other = self.file.with_name("changed.toml")
        other.write_text(text.replace(old, new))
        return other


@pytest.fixture(scope="module")
def estate(world: World, tmp_path_factory: pytest.TempPathFactory) -> Estate:
    folder = tmp_path_factory.mktemp("estate")
    file = world.configuration(folder, "estate", pools=(WEB, LEDGER))
    found = Estate(file, shardwright("run", "--config", file, "--output", "json"))
    assert found.first.code == 0, found.first.err
    return found


@contextmanager
def unharmed(estate: Estate, command: InProcess) -> Iterator[None]:
    before = estate.facts(command)
    yield
    assert estate.facts(command) == before


# --- the good round, from which the rest starts -----------------------------------------------------------------------


def test_a_good_round_prints_data_only_and_talks_on_stderr(estate: Estate, world: World) -> None:
    (record,) = estate.first.data
    assert record["problems"] == []
    assert {node["cell"].split("/")[0] for node in _planned(record)} == {"aws", "harbor"}
    assert "decide: plan" in estate.first.err
    assert "\x1b" not in estate.first.err  # no terminal: plain lines
    assert len(world.nodes_of("estate")) == len(_planned(record))


@pytest.mark.parametrize(
    "arguments",
    [
        ("nodes",),
        ("shards",),
        ("plan",),
        ("offers",),
        ("resolve", "shard://shop/web/api/0"),
        ("bills", "fetch"),
        ("bills", "report"),
        ("config", "show"),
    ],
    ids=" ".join,
)
def test_every_command_that_prints_data_prints_it_as_json_too(
    estate: Estate, command: InProcess, arguments: tuple[str, ...]
) -> None:
    told = command(*arguments, "--config", estate.file, "--output", "json")
    assert told.code == 0, told.err
    assert told.data
    table = command(*arguments, "--config", estate.file)
    assert table.code == 0
    assert table.out.strip()


def test_exported_bills_leave_stdout_empty(estate: Estate, command: InProcess, tmp_path: Path) -> None:
    told = command("bills", "export", "--config", estate.file, "--output-file", tmp_path / "bill.csv")
    assert (told.code, told.out) == (0, "")
    assert (tmp_path / "bill.csv").stat().st_size


# --- usage histories --------------------------------------------------------------------------------------------------

BAD_USAGE: Mapping[str, tuple[bytes | None, str]] = {
    "missing": (None, "there is no usage file"),
    "empty": (b"", "is empty"),
    "only a header": (b"series_id,timestamp,value\n", "holds no rows"),
    "no text": (b"\x00\xff\xfe\x01" * 99, "cannot be read as CSV"),
    "half a parquet": (b"PAR1half", "cannot be read as Parquet"),
    "other columns": (b"a,b\n1,2\n", "lacks the columns series_id, timestamp"),
    "a word for a number": (b"series_id,timestamp,value\nw,2026-11-01T00:00:00Z,ten\n", "row 1 of"),
    "no timestamp": (b"series_id,timestamp,value\nw,soon,10\n", "holds no timestamp"),
    "one sample": (b"series_id,timestamp,value\nw,2026-11-01T00:00:00Z,10\n", "the step of"),
    "several metrics": (
        b"series_id,timestamp,requests,cpu\nw,2026-11-01T00:00:00Z,1,2\nw,2026-11-01T01:00:00Z,1,2\n",
        "holds several metrics",
    ),
}


@pytest.mark.parametrize("kind", BAD_USAGE)
@pytest.mark.parametrize("verb", ["forecast", "run"])
def test_a_bad_usage_history(command: InProcess, estate: Estate, tmp_path: Path, kind: str, verb: str) -> None:
    content, said = BAD_USAGE[kind]
    path = tmp_path / "usage.csv"
    if content is not None:
        path.write_bytes(content)
    more = ("--config", estate.file) if verb == "run" else ()
    command(verb, "--usage", path, *more).refused(2, said)


def test_an_unknown_metric_names_the_one_that_was_meant(command: InProcess, estate: Estate, tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    path.write_bytes(BAD_USAGE["several metrics"][0] or b"")
    with unharmed(estate, command):
        for arguments in (("forecast",), ("run", "--config", estate.file)):
            command(*arguments, "--usage", path, "--metric", "request").refused(
                2, "no metric 'request'", "did you mean 'requests'?", "--metric requests"
            )


def test_without_a_configuration_a_bad_history_starts_no_sandbox(
    command: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = command("run", "--usage", tmp_path / "none.csv")
    told.refused(2, "there is no usage file")
    assert "starting" not in told.err
    command("run", "--metric", "requests").refused(2, "no usage history", "shardwright run --usage FILE")
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_a_round_keeps_its_kind(command: InProcess, estate: Estate) -> None:
    """It travels through the workflow's records; here the forecast of a round finds no such series."""
    with unharmed(estate, command):
        told = command("run", "--config", estate.changed('id = "ledger"', 'id = "ledger"\nseries = "wbe"'))
        told.refused(2, "no series 'wbe'", "it has web")
        assert "forecast: round" in told.err


# --- providers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [FaultMode.DOWN, FaultMode.RUBBISH, FaultMode.THROTTLE])
def test_providers_that_fail_are_named_and_cost_only_their_own_offers(
    command: InProcess, world: World, tmp_path: Path, mode: FaultMode
) -> None:
    file = world.configuration(tmp_path, "market", providers=PROVIDERS)
    with world.fault(mode, "aws", "gcp", "azure", "agora"):
        told = command("offers", "--config", file, "--output", "json")
    assert told.code == 0, told.err
    assert {offer["provider"] for offer in told.data} == {"harbor"}
    assert {line.split(":")[0] for line in told.err.splitlines()} == {"aws", "gcp", "azure", "agora"}
    assert "Traceback" not in told.err


def test_when_no_provider_answers_that_is_the_error(command: InProcess, world: World, tmp_path: Path) -> None:
    file = world.configuration(tmp_path, "market")
    with world.fault(FaultMode.DOWN, "aws", "harbor"):
        command("offers", "--config", file).refused(4, "no provider tells what it sells", "harbor", "aws")
        command("run", "--config", file).refused(4, "no provider tells what it sells")
        told = command("run", "--config", file, "--rounds", 2)
        told.refused(4, "no provider tells what it sells", "round: failed: ", "the next one begins")


def test_who_serves_stays_up_when_no_provider_answers(world: World, tmp_path: Path) -> None:
    file = world.configuration(tmp_path, "serving")
    pages: list[int] = []

    def act(process: subprocess.Popen[str]) -> None:
        pages.append(httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code)
        process.send_signal(signal.SIGTERM)

    port = free_port()
    file.write_text(file.read_text().replace("[control]", f"[control]\nweb_port = {port}"))
    with world.fault(FaultMode.DOWN, "aws", "harbor"):
        told = interrupted(file, at="what is there is served on", act=act, arguments=("--serve",))
    assert (pages, told.code) == ([200], 130), told.err
    assert "round: failed: no provider tells what it sells" in told.err
    assert "Traceback" not in told.err


def test_a_round_goes_on_without_a_provider_that_is_down(command: InProcess, estate: Estate, world: World) -> None:
    """It has a node there: the others are updated, that cell is left as it is, and the next round is good again."""
    with unharmed_but_for_the_plan(estate, command):
        with world.fault(FaultMode.DOWN, "aws"):
            told = command("run", "--config", estate.file, "--output", "json")
        assert told.code == 4
        assert "the round goes on without aws" in told.err
        assert "error: round estate-round-" in told.err
        assert "is done but for aws/" in told.err
        assert "next:  " in told.err
        assert "Traceback" not in told.err
        (record,) = told.data
        assert [failure["provider"] for failure in record["absent"]] == ["aws"]
        assert {outcome["cell"]["provider"] for outcome in record["outcomes"]} == {"harbor"}


@contextmanager
def unharmed_but_for_the_plan(estate: Estate, command: InProcess) -> Iterator[None]:
    """A round that is run through makes a plan; nodes and shards stay."""
    before = estate.facts(command)
    yield
    after = estate.facts(command)
    assert (after["nodes"], after["shards"]) == (before["nodes"], before["shards"])


def test_a_pool_tied_to_a_provider_that_talks_rubbish(command: InProcess, world: World, tmp_path: Path) -> None:
    file = world.configuration(tmp_path, "tied", pools=(WEB, LEDGER))
    with world.fault(FaultMode.RUBBISH, "aws"):
        command("run", "--config", file).refused(
            4, "pool ledger", "it may live only at aws, which could not be asked", "once aws answers"
        )
    assert world.nodes_of("tied") == []


def test_refused_credentials_are_three_and_do_not_stop_the_others(
    command: InProcess, estate: Estate, tmp_path: Path
) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("not the token")
    token = next(line for line in estate.file.read_text().splitlines() if line.startswith("credentials.token"))
    file = estate.changed(token, f'credentials.token = {{ file = "{wrong}" }}')
    with unharmed_but_for_the_plan(estate, command):
        told = command("run", "--config", file)
    assert told.code == 3, told.err
    assert "is done, but without harbor" in told.err
    assert "not the token" not in told.err


def test_missing_credentials_stop_a_round_before_it_begins(command: InProcess, estate: Estate) -> None:
    token = next(line for line in estate.file.read_text().splitlines() if line.startswith("credentials.token"))
    with unharmed(estate, command):
        file = estate.changed(token, 'credentials.token = { env = "SHARDWRIGHT_NO_SUCH_TOKEN" }')
        command("run", "--config", file).refused(
            3, "providers.harbor.credentials.token", "SHARDWRIGHT_NO_SUCH_TOKEN is not set", "export "
        )


# --- the market and the policy ----------------------------------------------------------------------------------------


def test_no_offer_fits(command: InProcess, world: World, tmp_path: Path) -> None:
    file = world.configuration(tmp_path, "huge", changes={"memory_gib = 0.125": "memory_gib = 9000"})
    command("run", "--config", file).refused(5, "pool web", "cannot be had", "shardwright offers")
    assert world.nodes_of("huge") == []


def test_a_policy_that_leaves_nothing_names_the_nearest_miss(command: InProcess, world: World, tmp_path: Path) -> None:
    only_there = {"[policy]": '[policy]\nregions = ["mars-1"]', '["harbor-eu"]': '["harbor-eu", "mars-1"]'}
    file = world.configuration(tmp_path, "mars", changes=only_there)
    command("run", "--config", file).refused(5, "nearest miss", "is not allowed")
    assert world.nodes_of("mars") == []


def test_the_budget_is_exceeded(command: InProcess, world: World, tmp_path: Path) -> None:
    file = world.configuration(tmp_path, "poor", changes={'hourly_budget = "2.00"': 'hourly_budget = "0.001"'})
    command("run", "--config", file).refused(5, "over the budget", "policy.hourly_budget is 0.001", "raise")
    assert world.nodes_of("poor") == []


def test_the_policy_pack_refuses_what_runs_already(command: InProcess, estate: Estate, world: World) -> None:
    """The planner keeps running nodes as they are; the pack, in the engine, does not let the update pass."""
    with unharmed(estate, command):
        told = command("run", "--config", estate.changed("[policy]", '[policy]\ninstance_families = ["zz"]'))
        told.refused(5, "the policy pack refuses the update of", "allowed-instance-families", "nothing was bought")
        assert "are released" in told.err


# --- parts that are missing -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH with everything that this PATH has but QEMU and Pulumi."""
    folder = tmp_path_factory.mktemp("programs")
    for place in (*os.get_exec_path(), "/usr/sbin", "/sbin"):
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            link = folder / program.name
            if not program.name.startswith(("qemu", "pulumi")) and not link.is_symlink():
                link.symlink_to(program)
    return folder


def test_without_the_pulumi_engine(
    command: InProcess, estate: Estate, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unharmed(estate, command):
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        command("run", "--config", estate.file).refused(1, "the Pulumi engine is not installed", "make setup")
        told = command("doctor", "--output", "json")
        assert told.code == 1
        assert _part(told, "pulumi engine") == (False, "make setup")
        monkeypatch.chdir(tmp_path)
        without = command("run")
        without.refused(1, "the Pulumi engine is not installed")
        assert "starting" not in without.err


@needs_root
def test_without_qemu_the_round_ends_and_names_it(
    command: InProcess, world: World, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes are bought and there; what cannot be carved is said, and is carved by a later round."""
    monkeypatch.setenv("PATH", str(programs))
    state, port = tmp_path / "sandbox", free_port()
    try:
        info = supervisor.start(state, seed=7, providers=("harbor",), control_ports=(port,))
        bare = replace(world, info=info, port=port)
        file = bare.configuration(tmp_path, "bare", providers=("harbor",))
        told = command("run", "--config", file, "--output", "json")
        assert told.code == 1
        assert "error: round bare-round-1 is done, but shards that are paid for are not there" in told.err
        assert "QEMU is not installed" in told.err
        assert "apt-get install qemu-system-x86" in told.err
        assert "Traceback" not in told.err
        (record,) = told.data
        assert [shard["state"] for shard in record["shards"]] == ["held"] * len(record["shards"])
        assert len(bare.nodes_of("bare")) == len(_planned(record))
        assert _part(command("doctor", "--output", "json"), "qemu-system-x86_64") == (
            False,
            "apt-get install qemu-system-x86",
        )
    finally:
        supervisor.stop(state)


# --- ports, states, disks ---------------------------------------------------------------------------------------------


def test_the_control_port_is_taken(command: InProcess, estate: Estate, world: World) -> None:
    with unharmed(estate, command), socket.create_server(("127.0.0.1", world.port)):
        command("run", "--config", estate.file).refused(2, f"cannot listen on 127.0.0.1:{world.port}", "in use")


def test_the_port_of_the_web_page_is_taken(command: InProcess, estate: Estate) -> None:
    with unharmed(estate, command), socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = estate.changed("[control]", f"[control]\nweb_port = {port}")
        command("run", "--config", file, "--serve").refused(2, f"127.0.0.1:{port}", "control.web_port")


def test_a_second_control_plane_on_the_same_state(command: InProcess, estate: Estate) -> None:
    """Reading beside it is fine; running is not."""
    database = Database(f"sqlite:///{estate.file.parent / 'state' / 'control.sqlite'}")
    with unharmed(estate, command), hold_state(database):
        command("run", "--config", estate.file).refused(
            1, "another control plane uses this state", f"process {os.getpid()}", "state.directory"
        )
        assert command("nodes", "--config", estate.file, "--output", "json").code == 0
    database.dispose()


def test_a_second_sandbox_in_the_same_folder(command: InProcess, world: World) -> None:
    """The one that runs there is not touched."""
    command("sandbox", "up", "--state", world.info.state_dir).refused(
        1, "a sandbox already runs in", "shardwright sandbox down --state"
    )
    client = SandboxClient(world.info)
    assert all(server.alive for server in client.status().servers)
    client.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here ({mounted.stderr.strip()}); run as root with CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return ballast


@needs_root
def test_a_full_disk_and_one_that_fills_up_in_the_middle_of_a_round(
    command: InProcess, world: World, small_disk: Path
) -> None:
    """Refused before anything is begun; cut short, the round is taken up again, and nothing is bought twice."""
    file = world.configuration(small_disk, "full", providers=("harbor",))
    ballast = fill(small_disk)
    command("run", "--config", file).refused(1, f"the disk of {small_disk / 'state'} is full", "free some space")
    assert world.nodes_of("full") == []

    ballast.unlink()
    told = interrupted(file, at="hold: 1 holds", act=lambda _: fill(small_disk))
    assert told.code == 1, told.err
    assert "Traceback" not in told.err
    assert "error: " in told.err
    assert "free some space" in told.err or "no space left" in told.err

    ballast.unlink()
    again = command("run", "--config", file, "--rounds", 2, "--output", "json")
    assert again.code == 0, again.err
    planned = sorted(node["id"] for node in _planned(again.data[-1]))
    assert world.nodes_of("full") == planned
    assert _all_up(again.data[-1])


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_ctrl_c_in_a_round_that_the_next_run_takes_up(command: InProcess, world: World, tmp_path: Path) -> None:
    file = world.configuration(tmp_path, "cut", providers=("harbor",))
    told = interrupted(file, at="gate: the policy pack judges", act=lambda process: process.send_signal(signal.SIGINT))
    assert told.code == 130, told.err
    assert "cancelled" in told.err
    assert "Traceback" not in told.err
    assert told.out == ""
    again = command("run", "--config", file, "--output", "json")
    assert again.code == 0, again.err
    assert world.nodes_of("cut") == sorted(node["id"] for node in _planned(again.data[-1]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_the_embedded_sandbox(tmp_path: Path, usage: Path, number: signal.Signals) -> None:
    work = tmp_path / "tmp"
    work.mkdir()
    tags: set[str] = set()

    def act(process: subprocess.Popen[str]) -> None:
        tags.update(tag for pid, tag in tagged(bool).items() if environment_value(pid, "TMPDIR") == str(work))
        process.send_signal(number)

    told = interrupted(
        None,
        at="harbor serves on",
        act=act,
        cwd=tmp_path,
        environment={"TMPDIR": str(work)},
        arguments=("--usage", str(usage)),
    )
    assert told.code == 130, told.err
    assert "no configuration is given: starting the embedded sandbox" in told.err
    assert "Traceback" not in told.err
    assert list(work.glob("shardwright-*")) == []
    (tag,) = tags  # others may run sandboxes of their own at the same time
    assert leftovers(tag) == []
    assert [pid for pid in all_pids() if environment_value(pid, "TMPDIR") == str(work)] == []


def interrupted(
    file: Path | None,
    *,
    at: str,
    act: Any,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
) -> Told:
    """Run a round as a process; ``act`` on it as soon as it says ``at`` on stderr."""
    config = () if file is None else ("--config", str(file))
    process = subprocess.Popen(
        [str(EXECUTABLE), "run", *config, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        for line in process.stderr:
            lines.append(line)
            if at in line:
                act(process)
                break
        out, err = process.communicate(timeout=100)
    finally:
        watchdog.cancel()
        process.kill()
    assert any(at in line for line in lines), "".join(lines)
    return Told(process.returncode, out, "".join(lines) + err)


# --- not root ---------------------------------------------------------------------------------------------------------


def test_not_root_the_sandbox_runs_on_loopback_and_says_what_is_lost(
    world: World, tmp_path: Path, ordinary_user: tuple[str, ...]
) -> None:
    """Without namespaces the whole round still works: nodes, shards and bindings, on loopback addresses."""
    state = tmp_path / "sandbox"
    try:
        up = shardwright("sandbox", "up", "--state", state, wrapper=ordinary_user)
        assert up.code == 0, up.err
        assert up.out == ""
        assert "without network namespaces (not root)" in up.err
        assert "nodes are processes on loopback addresses" in up.err
        assert "shards have no address of their own and clients cannot follow a move" in up.err
        info = SandboxInfo.load(state)
        assert not info.namespaces
        plain = replace(world, info=info, port=free_port())
        file = plain.configuration(tmp_path, "plain", providers=("harbor",))
        told = shardwright("run", "--config", file, "--output", "json", wrapper=ordinary_user, timeout_seconds=200)
        assert told.code == 0, told.err
        (record,) = told.data
        assert _all_up(record)
        client = SandboxClient(info)
        assert all(node.address.startswith("127.") and node.namespace is None for node in client.status().nodes)
        client.close()
    finally:
        down = shardwright("sandbox", "down", "--state", state, wrapper=ordinary_user)
    assert down.code == 0, down.err
    assert not state.exists()
    assert leftovers(info.tag) == []


def test_another_users_sandbox_is_not_touched(world: World) -> None:
    """Another user namespace is as good as another user: its process may not be looked into."""
    if subprocess.run([*NOBODY, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    told = shardwright("sandbox", "down", "--state", world.info.state_dir, wrapper=NOBODY)
    told.refused(1, "is not yours to end", "as the user who started it")
    client = SandboxClient(world.info)
    assert all(server.alive for server in client.status().servers)
    client.close()


# --- at the end -------------------------------------------------------------------------------------------------------


def test_after_all_of_that_a_good_round_is_good(command: InProcess, estate: Estate, world: World) -> None:
    with unharmed_but_for_the_plan(estate, command):
        told = command("run", "--config", estate.file, "--output", "json")
    assert told.code == 0, told.err
    (record,) = told.data
    assert all(not any(outcome["changes"][op] for op in ("create", "delete")) for outcome in record["outcomes"])
    assert world.nodes_of("estate") == sorted(node["id"] for node in _planned(record))


def _planned(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [planned["node"] for cell in record["plan"]["cells"] for planned in cell["nodes"]]


def _all_up(record: Mapping[str, Any]) -> bool:
    """Every planned shard is carved; as many as are needed now are bound, those bought ahead of need are ready."""
    slots = [slot for cell in record["plan"]["cells"] for node in cell["nodes"] for slot in node["slots"]]
    planned = {target["pool"]["id"]: 0 for target in record["targets"]}
    for slot in slots:
        planned[slot["pool"]] += slot["count"]
    needed = sum(min(target["current"], planned[target["pool"]["id"]]) for target in record["targets"])
    ready = sum(planned.values()) - needed
    states = sorted(shard["state"] for shard in record["shards"])
    return needed > 0 and states == ["bound"] * needed + ["ready"] * ready


def _part(told: Told, name: str) -> tuple[bool, str]:
    part = next(one for one in told.data if one["name"] == name)
    return part["ok"], part["remedy"]
