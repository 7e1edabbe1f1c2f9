"""Which stage is on, how long each took, and the record of each once its facts are known."""

from datetime import datetime

from pydantic import JsonValue

from engine.clock import Clock
from engine.demo.show import Show
from engine.demo.stages import RecordFile, Stage, StageRecord
from engine.events import Event

_STAGES = {
    "forecast": Stage.FORECAST,
    "discover": Stage.PLAN,
    "negotiate": Stage.PLAN,
    "decide": Stage.PLAN,
    "hold": Stage.PLAN,
    "gate": Stage.RECONCILE,
    "reconcile": Stage.RECONCILE,
    "carve": Stage.SHARDS,
    "bind": Stage.SHARDS,
}
"""Steps of the first round by the stage that shows them."""


class Timeline:
    """Events in, stages out. Records are written in the stages' order, each as soon as those before it are written."""

    def __init__(self, show: Show, records: RecordFile, clock: Clock) -> None:
        self.events: list[Event] = []
        self.follow_steps = False
        """While on, an event of a later stage begins that stage."""
        self._show, self._records, self._clock = show, records, clock
        self._current: Stage | None = None
        self._began: dict[Stage, datetime] = {}
        self._seconds: dict[Stage, float] = {}
        self._facts: dict[Stage, dict[str, JsonValue]] = {}
        self._written: list[Stage] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)
        stage = _STAGES.get(event.step)
        if self.follow_steps and stage is not None and self._is_later(stage):
            self.begin(stage)
        self._show.line(event.text)

    def begin(self, stage: Stage) -> None:
        self.end()
        self._current = stage
        self._began.setdefault(stage, self._clock.now())
        self._show.begin(stage)

    def end(self) -> None:
        if self._current is None:
            return
        stage, self._current = self._current, None
        self._seconds[stage] = (self._clock.now() - self._began[stage]).total_seconds()
        self._show.end(stage, self._seconds[stage])
        self._write()

    def facts(self, stage: Stage, **facts: JsonValue) -> None:
        """Add to a stage's record. A stage is written once it has ended and has facts."""
        self._facts.setdefault(stage, {}).update(facts)
        self._write()

    @property
    def seconds(self) -> dict[Stage, float]:
        return dict(self._seconds)

    def _is_later(self, stage: Stage) -> bool:
        order = list(Stage)
        return self._current is None or order.index(stage) > order.index(self._current)

    def _write(self) -> None:
        for stage in Stage:
            if stage in self._written:
                continue
            if stage not in self._seconds or stage not in self._facts:
                return
            self._records.add(
                StageRecord(
                    stage=stage,
                    started_at=self._began[stage],
                    seconds=self._seconds[stage],
                    facts=self._facts[stage],
                )
            )
            self._written.append(stage)
