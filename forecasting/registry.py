"""Trained networks on disk: one folder each, weights beside a JSON that says what they are."""

import hashlib
import io
import math
import shutil
import tempfile
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import structlog
import torch
from pydantic import ValidationError

from engine.clock import Clock, SystemClock
from engine.model.value import Utc, Value
from forecasting.base import History
from forecasting.rnn.calibration import Calibration
from forecasting.rnn.model import QuantileNetwork
from forecasting.rnn.train import TrainingPlan, TrainingReport
from forecasting.rnn.trained import TrainedRnn, train_rnn

NEWEST_KEPT = 32
"""Networks that nothing stands on: with every step a history changes, and with it the network that is tuned on it."""
_DRAFT = ".draft-"
_ABANDONED = timedelta(days=1)
"""A draft that is older has no writer any more."""
SCHEMA_VERSION = 2
"""Raise it whenever the network or its inputs change: older weights are then trained anew."""
log = structlog.get_logger(__name__)


class ModelCard(Value):
    """model.json. ``fingerprint`` is of the histories and the plan; ``weights_sha256`` of the file beside it."""

    schema_version: Literal[2] = 2
    fingerprint: str
    weights_sha256: str
    freq_seconds: float
    plan: TrainingPlan
    report: TrainingReport
    calibration_levels: tuple[float, ...]
    calibration_spreads: dict[str, float]
    calibration_together: float = 0.0
    series: int
    trained_at: Utc


class ModelRegistry:
    """Folders ``<root>/<fingerprint>/{model.pt,model.json}``. A folder appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, fingerprint: str) -> TrainedRnn | None:
        """None when it is not there, or damaged (which is logged; the next ``save`` replaces it)."""
        folder = self.root / fingerprint
        if not folder.is_dir():
            return None
        try:
            card = ModelCard.model_validate_json((folder / "model.json").read_bytes())
            weights = (folder / "model.pt").read_bytes()
            if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
                raise ValueError("the weights are not the ones that were saved")
            return _restored(card, weights)
        except (OSError, ValueError, ValidationError, RuntimeError, KeyError) as problem:
            log.warning("model_damaged", folder=str(folder), problem=str(problem))
            return None

    def cards(self) -> tuple[ModelCard, ...]:
        """Of every network that is there, the oldest first; a card that cannot be read is left out, and logged."""
        found = []
        for path in self.root.glob("*/model.json"):
            if path.parent.name.startswith(_DRAFT):
                continue
            try:
                found.append(ModelCard.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError) as problem:
                log.warning("model_damaged", folder=str(path.parent), problem=str(problem))
        return tuple(sorted(found, key=lambda card: card.trained_at))

    def save(self, fingerprint: str, trained: TrainedRnn, *, series: int, now: datetime) -> ModelCard:
        weights = _weights(trained)
        card = ModelCard(
            fingerprint=fingerprint,
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            freq_seconds=trained.freq.total_seconds(),
            plan=trained.plan,
            report=trained.report,
            calibration_levels=tuple(float(level) for level in trained.calibration.levels),
            calibration_spreads=trained.calibration.spreads,
            calibration_together=trained.calibration.together,
            series=series,
            trained_at=now,
        )
        self.root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.root))
        (draft / "model.pt").write_bytes(weights)
        (draft / "model.json").write_text(card.model_dump_json(indent=2) + "\n")
        folder = self.root / fingerprint
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
        return card

    def sweep(self, keep: Collection[str], now: datetime) -> None:
        """Removes all but those to ``keep`` and the newest others, and drafts of writers that died."""
        others = [card.fingerprint for card in self.cards() if card.fingerprint not in keep]
        for name in others[:-NEWEST_KEPT]:
            shutil.rmtree(self.root / name, ignore_errors=True)
        for draft in self.root.glob(f"{_DRAFT}*"):
            if _changed(draft) < (now - _ABANDONED).timestamp():
                shutil.rmtree(draft, ignore_errors=True)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process has swept it, or put it in place
        return math.inf


def fingerprint(histories: Sequence[History], plan: TrainingPlan) -> str:
    """Of every value, name, start and step, the plan, and the version of the network: 32 hex digits."""
    return _digest(histories, f"{SCHEMA_VERSION}|{plan.model_dump_json()}")


def usage_fingerprint(histories: Sequence[History], metric: str) -> str:
    """The same of the usage alone."""
    return _digest(histories, metric)


def _digest(histories: Sequence[History], before: str) -> str:
    digest = hashlib.sha256(before.encode())
    for history in histories:
        digest.update(f"|{history.series_id}|{history.start.isoformat()}|{history.freq}|".encode())
        digest.update(np.ascontiguousarray(history.values, dtype="<f8").tobytes())
    return digest.hexdigest()[:32]


def load_or_train(
    registry: ModelRegistry | None,
    histories: Sequence[History],
    plan: TrainingPlan,
    *,
    clock: Clock | None = None,
    start: TrainedRnn | None = None,
) -> tuple[TrainedRnn, bool]:
    """The network for exactly these histories and this plan, and whether it was loaded. Raises as ``train_rnn``."""
    clock = clock or SystemClock()
    if registry is None:
        return train_rnn(histories, plan, clock=clock, start=start), False
    name = fingerprint(histories, plan)
    found = registry.find(name)
    if found is not None:
        return found, True
    trained = train_rnn(histories, plan, clock=clock, start=start)
    registry.save(name, trained, series=len(histories), now=clock.now())
    return trained, False


def _weights(trained: TrainedRnn) -> bytes:
    buffer = io.BytesIO()
    correlation = torch.from_numpy(trained.calibration.correlation)
    torch.save({"network": trained.network.state_dict(), "correlation": correlation}, buffer)
    return buffer.getvalue()


def _restored(card: ModelCard, weights: bytes) -> TrainedRnn:
    stored = torch.load(io.BytesIO(weights), weights_only=True)
    network = QuantileNetwork(card.plan.hidden)
    network.load_state_dict(stored["network"])
    calibration = Calibration(
        np.array(card.calibration_levels),
        dict(card.calibration_spreads),
        stored["correlation"].numpy(),
        card.calibration_together,
    )
    return TrainedRnn(network.eval(), card.plan, timedelta(seconds=card.freq_seconds), calibration, card.report)
