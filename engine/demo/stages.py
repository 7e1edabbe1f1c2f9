"""The eight stages, what is recorded of each, and where the records go."""

import json
from collections.abc import Mapping
from datetime import UTC
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from engine.model.value import Utc, Value


class Stage(StrEnum):
    SANDBOX = "sandbox"
    FORECAST = "forecast"
    PLAN = "plan"
    RECONCILE = "reconcile"
    SHARDS = "shards"
    MOVE = "move"
    BILLS = "bills"
    CLEAN = "clean"


class StageRecord(Value):
    """One line of demo.jsonl."""

    stage: Stage
    started_at: Utc
    seconds: float
    facts: dict[str, JsonValue]


class RecordFile:
    """JSON lines, one per stage, each flushed when its stage ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")

    def add(self, record: StageRecord) -> None:
        line: Mapping[str, Any] = {
            "schema_version": 1,
            "stage": record.stage.value,
            "started_at": record.started_at.astimezone(UTC).isoformat(),
            "seconds": round(record.seconds, 3),
            **record.facts,
        }
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
