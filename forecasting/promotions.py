"""Every retraining that ended, beside the networks; the newest promoted one is what forecasts stand on."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from pydantic import ValidationError

from engine.retraining.base import Retraining
from forecasting.network import Network
from forecasting.pretrained import pretrained
from forecasting.registry import ModelRegistry

FOLDER = "retrainings"
log = structlog.get_logger(__name__)


class Promotions:
    """``<root>/retrainings/<fingerprint of the usage>.json``, a record each; none is ever changed."""

    def __init__(self, root: Path) -> None:
        self.registry = ModelRegistry(root)
        self.folder = root / FOLDER

    def all(self) -> tuple[Retraining, ...]:
        """By version. A damaged record is left out, and logged."""
        found = []
        for path in self.folder.glob("*.json"):
            try:
                found.append(Retraining.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError) as problem:
                log.warning("retraining_damaged", path=str(path), problem=str(problem))
        return tuple(sorted(found, key=lambda record: record.version))

    def of(self, metric: str, step: timedelta) -> tuple[Retraining, ...]:
        return tuple(record for record in self.all() if (record.metric, record.step) == (metric, step))

    def add(self, record: Retraining) -> Retraining:
        """With the next free version. The first record of a fingerprint stays, and is what is returned."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            known = self.all()
            same = next((one for one in known if one.fingerprint == record.fingerprint), None)
            if same is not None:
                return same
            numbered = record.model_copy(update={"version": known[-1].version + 1 if known else 1})
            path = self.folder / f"{numbered.fingerprint}.json"
            draft = path.with_suffix(".draft")
            draft.write_text(numbered.model_dump_json(indent=2) + "\n", encoding="utf-8")
            draft.replace(path)
            return numbered

    def promoted(self) -> tuple[Retraining, ...]:
        """The newest promoted record of each metric and step."""
        newest = {(record.metric, record.step): record for record in self.all() if record.promoted}
        return tuple(newest.values())

    def standing(self, metric: str, step: timedelta, horizon: int) -> Network | None:
        """The promoted network, or the shipped one where no retraining bettered it. None: nothing was retrained yet.

        A promoted network that is damaged, or does not reach so far, counts as not there.
        """
        records = self.of(metric, step)
        for record in reversed(records):
            rnn = self.registry.find(record.model) if record.promoted else None
            if rnn is not None and horizon <= rnn.plan.horizon:
                return Network(rnn, loaded=True, origin=f"version {record.version}, {record.outcome}")
        shipped = pretrained(step, horizon) if records else None
        if shipped is None:
            return None
        return Network(shipped, loaded=True, origin=f"shipped, as it is: version {records[-1].version} was no better")

    def sweep(self, now: datetime) -> None:
        """Removes networks of no record; see ``ModelRegistry.sweep``."""
        self.registry.sweep({record.model for record in self.all()}, now)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
