"""A real cluster of two workers on this machine, shared by the tests of this file: its start takes seconds."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
from typer.testing import CliRunner

from engine.cli.main import app
from engine.errors import BadUsageData, PlayFailed, ScaleOutFailed
from forecasting.backtest import Judge, Judged, judge
from forecasting.base import History
from forecasting.champion import Champions, chosen
from forecasting.network import Network
from forecasting.pretrained import pretrained
from forecasting.sample_forecast import SampleForecast
from forecasting.scale import ray_cluster
from forecasting.scale.engines import Engine
from forecasting.scale.ray_cluster import RaySpread, signature, started
from forecasting.scale.spread import IN_PROCESS, Spread
from forecasting.synthetic import synthetic_fleet
from forecasting.traces import Trace
from forecasting.train import HOURLY_RECIPE, training_set
from lab.bound import clairvoyant_bound
from lab.experiment import Job, LabReport, play_job, run_lab
from tests.unit.forecasting.scale.pieces import PATIENCE, bad, played_once_killed
from tests.unit.lab.generated import generated

HORIZON = 24
told: list[tuple[str, int, int]] = []


@pytest.fixture(scope="module")
def cluster() -> Iterator[RaySpread]:
    with started(2, lambda *progress: told.append(progress)) as spread:
        yield spread
    assert not [p for p in psutil.Process().children(recursive=True) if "ray" in p.name()]


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(pretrained(timedelta(hours=1), HORIZON), loaded=True, origin="shipped")


@pytest.fixture(scope="module")
def series() -> list[History]:
    return [*synthetic_fleet(10, seed=4, days=21), arrivals()]


def arrivals() -> History:
    """Intermittent, and counted in whole numbers: both are chosen for, and forecast, in a way of their own."""
    rng = np.random.default_rng(5)
    by_hour = np.where(np.arange(21 * 24) % 24 >= 12, 0.6, 0.1)
    values = np.where(rng.random(21 * 24) < by_hour, rng.integers(1, 9, 21 * 24), 0).astype(np.float64)
    return History("arrivals", datetime(2026, 1, 5, tzinfo=UTC), timedelta(hours=1), values)


def forecast(network: Network, series: Sequence[History], spread: Spread) -> tuple[Champions, list[SampleForecast]]:
    field = chosen(network, series, HORIZON, spread=spread)
    return field, field.forecast(series, HORIZON, paths=50, spread=spread)


def exact(made: Sequence[SampleForecast]) -> list[tuple[object, ...]]:
    return [(f.series_id, f.start, f.freq, f.forecaster, f.sample_paths(50).tobytes()) for f in made]


def every_number(judged: Judged) -> object:
    tallies = {name: [repr(vars(tally)) for tally in some] for name, some in judged.tallies.items()}
    return tallies, repr(judged.questions), judged.leaders, judged.fans


def test_what_the_work_raises_comes_back(cluster: RaySpread) -> None:
    with pytest.raises(BadUsageData, match=r"^piece 1$"):
        list(cluster.map(bad, BadUsageData, [1], what="failing"))
    with pytest.raises(ScaleOutFailed, match="a piece failed on its worker; piece 1"):
        list(cluster.map(bad, ValueError, [1], what="failing"))


def test_workers_with_other_code_are_refused(
    cluster: RaySpread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.warm_up()
    monkeypatch.setattr(ray_cluster, "ROOT", tmp_path)
    with pytest.raises(ScaleOutFailed, match="another version of this package"):
        cluster.warm_up()


@pytest.mark.parametrize("folder", ["engine", "forecasting", "lab"])
def test_a_changed_line_changes_the_signature(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "ROOT", tmp_path)
    code = tmp_path / folder / "deep" / "part.py"
    code.parent.mkdir(parents=True)
    code.write_text("x = 1\n")
    before = signature()
    assert signature() == before
    code.write_text("x = 2\n")
    assert signature() != before


class SlowToStart:
    """Ray on a machine that is busy: so many starts fail as Ray's own time-out does. Its one worker is this process."""

    def __init__(self, failures: int) -> None:
        self.failures, self.starts, self.shutdowns = failures, 0, 0
        self.util = SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1")
        self.exceptions = ray_cluster._loaded().exceptions

    def init(self, *_: object, **__: object) -> None:
        self.starts += 1
        if self.starts <= self.failures:
            raise Exception("The current node timed out during startup.")

    def shutdown(self) -> None:
        self.shutdowns += 1

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, work: object) -> SimpleNamespace:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=work))

    def get(self, answer: object, timeout: float) -> object:
        assert timeout > 0
        return answer


def test_a_start_that_takes_ray_too_long_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowToStart(failures=2)
    monkeypatch.setattr(ray_cluster, "_loaded", lambda: slow)
    with started(1):
        assert (slow.starts, slow.shutdowns) == (3, 2)
    assert slow.shutdowns == 3


def test_a_cluster_that_never_starts_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowToStart(failures=99)
    monkeypatch.setattr(ray_cluster, "_loaded", lambda: slow)
    with pytest.raises(ScaleOutFailed, match=r"did not start; The current node timed out.*--engine local"), started(1):
        pass
    assert (slow.starts, slow.shutdowns) == (3, 3)


def test_it_listens_on_loopback_only(cluster: RaySpread) -> None:
    mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for p in mine for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(listening) > 3
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def figures(report: LabReport) -> dict[str, object]:
    """All but how long it took."""
    took = {"init_seconds", "answer_p95_seconds", "seconds"}
    return report.model_dump(exclude={"cases": {"__all__": {"bound": {"seconds"}, "played": {"__all__": took}}}})


def test_replays_are_the_same_to_the_last_digit(cluster: RaySpread) -> None:
    told.clear()
    cases, policies = (generated(1, steps=24), generated(2, steps=24)), ("quantile-diversified", "greedy-spot")
    lines: list[str] = []
    here, there = (
        run_lab(cases, policies, seed=3, spread=spread, tell=lines.append) for spread in (IN_PROCESS, cluster)
    )
    assert figures(there) == figures(here)
    assert there.cases[1].of("greedy-spot").result.bought == here.cases[1].of("greedy-spot").result.bought
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    assert told[-1] == ("playing", 4, 4)


def jobs() -> list[Job]:
    case = generated(steps=24)
    return [Job(case, clairvoyant_bound(case), policy) for policy in ("reactive", "greedy-spot", "peak-on-demand")]


def test_a_worker_that_is_killed_costs_no_result(cluster: RaySpread, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    killed: list[int] = []

    def kill() -> None:
        limit = time.monotonic() + PATIENCE
        while not (marker.exists() and marker.read_text().endswith("\n")) and time.monotonic() < limit:
            threading.Event().wait(0.01)
        killed.append(int(marker.read_text()))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = list(cluster.map(played_once_killed, marker, jobs(), what="playing"))
    killer.join()
    assert killed
    assert killed[0] != os.getpid()
    assert found == [play_job(job).result for job in jobs()]


def test_a_replay_that_kills_every_worker_is_given_up_and_named(
    cluster: RaySpread, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "RETRIES", 1)
    deadly = tmp_path / "deadly.py"
    deadly.write_text(f"import os\nopen({str(tmp_path / 'tries')!r}, 'a').write('x')\nos.kill(os.getppid(), 9)\n")
    with pytest.raises(PlayFailed, match="generated-7 could not be played with command") as failed:
        run_lab([generated(steps=24)], [], command=f"{sys.executable} {deadly}", spread=cluster)
    assert (tmp_path / "tries").read_text() == "xx"
    assert "lost with its worker 2 times" in failed.value.why
    assert "--engine local" in failed.value.next_step
    assert capfd.readouterr().out == ""


def test_forecasts_are_the_same_to_the_last_bit(network: Network, series: list[History], cluster: RaySpread) -> None:
    told.clear()
    here, there = (forecast(network, series, spread) for spread in (IN_PROCESS, cluster))
    assert there[0].choices == here[0].choices
    assert here[0].choices[-1].whole
    assert here[0].choices[-1].wql_of("hurdle") is not None
    assert exact(there[1]) == exact(here[1])
    assert told[-1] == ("forecasting", 3, 3)
    there[1][0].sample_paths(50)[0] = 0.0  # the arrays are this process's own


def test_a_backtest_is_the_same_to_the_last_bit(network: Network, series: list[History], cluster: RaySpread) -> None:
    usable = [Judge(history, int(0.8 * len(history.values))) for history in series]
    here, there = (judge(network, usable, HORIZON, 2, spread=spread) for spread in (IN_PROCESS, cluster))
    assert every_number(there) == every_number(here)
    assert len(here.fans) == 4


def test_a_training_set_is_the_same_to_the_last_bit(tmp_path: Path, cluster: RaySpread) -> None:
    (tmp_path / "traces").mkdir()
    usage_file(tmp_path / "traces" / "vms.parquet", synthetic_fleet(8, seed=1, days=35), "cpu_cores")
    recipe = replace(HOURLY_RECIPE, traces=(Trace("bitbrains", "vms.parquet", "cpu_cores"),), varied=9, varied_days=20)
    here, there = (training_set(recipe, tmp_path, frozenset(), 0, spread) for spread in (IN_PROCESS, cluster))
    assert [(h.series_id, h.start, h.values.tobytes()) for h in there[0]] == [
        (h.series_id, h.start, h.values.tobytes()) for h in here[0]
    ]
    assert there[1].tobytes() == here[1].tobytes()


def usage_file(path: Path, series: Sequence[History], column: str = "value") -> None:
    parts = [
        pd.DataFrame(
            {
                "series_id": h.series_id,
                "timestamp": pd.date_range(h.start, periods=len(h.values), freq="h"),
                column: np.asarray(h.values),
            }
        )
        for h in series
    ]
    pd.concat(parts).to_parquet(path)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from engine.cli import main; main()", *map(str, arguments)]


def test_the_forecast_command_prints_the_same(
    series: list[History], cluster: RaySpread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage_file(tmp_path / "usage.parquet", [History(h.series_id, h.start, h.freq, h.values[-40:]) for h in series[:5]])
    common = ["forecast", "--usage", str(tmp_path / "usage.parquet"), "--models", str(tmp_path / "models")]
    here = CliRunner().invoke(app, [*common, "--output", "json"])
    asked: list[tuple[object, ...]] = []

    @contextmanager
    def over(*arguments: object) -> Iterator[RaySpread]:
        asked.append(arguments[:3])
        yield cluster

    monkeypatch.setattr("engine.cli.forecast.spread_over", over)
    there = CliRunner().invoke(app, [*common, "--output", "json", "--engine", "ray", "--workers", "2"])
    assert (there.exit_code, here.exit_code) == (0, 0), there.stderr
    assert asked == [(Engine.RAY, 2, None)]
    assert there.stdout == here.stdout
    assert there.stdout.startswith("{")


def test_a_command_joins_a_running_cluster_and_prints_only_data(cluster: RaySpread, tmp_path: Path) -> None:
    import ray

    (tmp_path / "case.json").write_text(generated(steps=24).model_dump_json(), encoding="utf-8")
    common = ("lab", "run", tmp_path / "case.json", "--policies", "reactive,greedy-spot")
    address = ray.get_runtime_context().gcs_address
    there = subprocess.run(
        command(*common, "--engine", "ray", "--ray-address", address),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    here = CliRunner().invoke(app, [*map(str, common)])
    assert (there.returncode, here.exit_code) == (0, 0), there.stderr
    assert there.stdout == here.stdout
    assert "greedy-spot" in there.stdout
    assert "ray" not in there.stderr.lower()


def _heeds_interrupts() -> None:
    """What is started in the background of a shell inherits that interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "case.json").write_text(generated(steps=24).model_dump_json(), encoding="utf-8")
    with TemporaryDirectory(prefix="c", dir="/tmp") as folder:  # a short name, for the sockets
        running = subprocess.Popen(
            command(
                *("lab", "run", *[tmp_path / "case.json"] * 40, "--policies", "shardwright"),
                *("--engine", "ray", "--workers", 2),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_heeds_interrupts,
            env={**{k: v for k, v in os.environ.items() if not k.startswith("RAY_")}, "TMPDIR": folder},
        )
        assert running.stderr is not None
        while not running.stderr.readline().startswith("bound of"):
            assert running.poll() is None
        family = psutil.Process(running.pid).children(recursive=True)
        os.killpg(running.pid, signal.SIGINT)
        stdout, _ = running.communicate(timeout=PATIENCE)
        assert (running.returncode, stdout) == (130, "")
        assert len(family) > 3
        assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
        assert list(Path(folder).iterdir()) == []
