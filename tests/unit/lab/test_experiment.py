"""Cases times policies: independent jobs, standings, an outside program beside the others."""

import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from engine.errors import PlayFailed, ScaleOutFailed
from forecasting.scale.spread import Piece, Result, Shared
from lab.bound import clairvoyant_bound
from lab.experiment import COMMAND, Job, LabReport, play_job, run_lab
from lab.inputs import InputFile, Inputs
from lab.policies.registry import BASELINES
from lab.report import as_html, write_report
from lab.wire import Init
from tests.unit.lab.cases import case_of, tiny
from tests.unit.lab.generated import generated

PROGRAM = f"{sys.executable} {Path(__file__).parent / 'quarter_more.py'}"


def test_a_job_travels_and_comes_back_the_same() -> None:
    case = generated(steps=24)
    job = Job(case, clairvoyant_bound(case), "reactive")
    there = pickle.loads(pickle.dumps(job))
    back = pickle.loads(pickle.dumps(play_job(there)))
    assert back.result == play_job(job).result


class Backwards:
    """A ``Spread`` whose pieces travel, the last one first."""

    did = 0

    def map(
        self, work: Callable[[Shared, Piece], Result], shared: Shared, pieces: Sequence[Piece], *, what: str
    ) -> Iterator[Result]:
        found = []
        for piece in reversed(pieces):
            there, setting, sent = pickle.loads(pickle.dumps((work, shared, piece)))
            found.append(there(setting, sent))
            self.did += 1
        return reversed(found)


def test_jobs_may_run_anywhere() -> None:
    backwards = Backwards()
    report = run_lab([case_of(tiny())], ["reactive", "peak-on-demand"], spread=backwards)
    assert [each.policy for each in report.cases[0].played] == ["reactive", "peak-on-demand"]
    assert backwards.did == 3  # and a bound


def test_an_outside_program_is_reported_but_no_baseline() -> None:
    told: list[str] = []
    report = run_lab([generated(steps=12)], ["peak-on-demand"], command=PROGRAM, tell=told.append)
    played = report.cases[0].of(COMMAND)
    assert (played.result.malformed, played.result.late) == (0, 0)
    assert report.command == PROGRAM
    assert report.cases[0].best_baseline == "peak-on-demand"
    assert [line.split(":")[0] for line in told] == [
        "bound of generated-7",
        "1/2 generated-7 peak-on-demand",
        "2/2 generated-7 command",
    ]


def test_a_play_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES, "broken", "tests.unit.lab.test_experiment:Broken")
    with pytest.raises(
        PlayFailed, match="small could not be played with broken; ZeroDivisionError: lost count"
    ) as failed:
        run_lab([case_of(tiny())], ["reactive", "broken"])
    assert failed.value.next_step == "play it alone: --policies broken --engine local"


class Broken:
    def start(self, init: Init) -> None:
        raise ZeroDivisionError("lost count")


def test_a_play_that_is_lost_with_its_worker_is_named() -> None:
    with pytest.raises(PlayFailed, match="small could not be played with greedy-spot; worker gone") as failed:
        run_lab([case_of(tiny())], ["reactive", "greedy-spot"], spread=LosesTheSecond())
    assert failed.value.next_step == "fewer --workers"


class LosesTheSecond:
    """A ``Spread`` that cannot do the second piece."""

    def map(
        self, work: Callable[[Shared, Piece], Result], shared: Shared, pieces: Sequence[Piece], *, what: str
    ) -> Iterator[Result]:
        yield work(shared, pieces[0])
        if len(pieces) > 1:
            raise ScaleOutFailed("worker gone", next_step="fewer --workers")


def test_without_a_baseline_that_keeps_the_risk_there_is_no_best_one() -> None:
    report = run_lab([case_of(tiny())], ["uniform-progress"])
    assert report.cases[0].best_baseline is None
    assert report.standings[0].cost_to_best is None
    assert (report.standings[0].kept, report.standings[0].cases) == (0, 1)


def test_the_report_comes_back_from_json() -> None:
    report = run_lab([generated(steps=12)], ["reactive", "greedy-spot"], seed=3)
    text = report.model_dump_json()
    assert '"seed":3' in text
    assert '"bought"' not in text
    assert report.cases[0].fingerprint in text


def test_the_page_needs_no_network_and_names_everybody(tmp_path: Path) -> None:
    cases = (generated(steps=12),)
    inputs = Inputs(
        version="0.1.0",
        arguments=("--case", "a <case>", "--seed", "0"),
        files=(InputFile(option="--case", path="a <case>", sha256="c0ffee"),),
    )
    report: LabReport = run_lab(cases, ["reactive", "greedy-spot"], notes=["a <note>"], inputs=inputs)
    page = as_html(report, cases)
    assert "src=" not in page.split("</style>")[0]
    for words in ("reactive", "greedy-spot", "a &lt;note&gt;", "Cost by cause", "Shortfall as a share", "plotly"):
        assert words in page
    for words in ("lab run --case &#x27;a &lt;case&gt;&#x27; --seed 0", "a &lt;case&gt;<td><code>c0ffee</code>"):
        assert words in page
    for name in ("gold", "silver", "bronze", "overall"):
        assert f"<th>{name} short (at most {report.cases[0].played[0].result.limits[name]:.3%})" in page
    for each in report.cases[0].played:
        assert f"<td>{each.result.shortfall_by_class['bronze']:.3%}" in page
    write_report(tmp_path / "lab.html", report, cases)
    assert [path.name for path in tmp_path.iterdir()] == ["lab.html"]
