"""Usage put aside for a training, so that a training that is interrupted goes on with exactly the same."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from engine.errors import BadUsageData
from engine.model.value import Utc, Value
from forecasting.base import History


class _Series(Value):
    series_id: str
    start: Utc
    freq: timedelta
    synthetic: bool


class _Contents(Value):
    metric: str
    series: tuple[_Series, ...]


class TrainingSet(NamedTuple):
    metric: str
    histories: tuple[History, ...]

    @property
    def measured_end(self) -> datetime:
        return max(history.measured_end for history in self.histories)


class TrainingSets:
    """One file per key in ``folder``, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, key: str, metric: str, histories: Sequence[History]) -> None:
        """Replaces what is there."""
        named = tuple(
            _Series(series_id=h.series_id, start=h.start, freq=h.freq, synthetic=h.synthetic) for h in histories
        )
        arrays = {str(i): history.values for i, history in enumerate(histories)}
        contents = np.array(_Contents(metric=metric, series=named).model_dump_json())
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._path(key).with_suffix(".draft")
        with draft.open("wb") as file:
            np.savez_compressed(file, contents=contents, **arrays)  # type: ignore[arg-type]
        draft.replace(self._path(key))

    def load(self, key: str) -> TrainingSet:
        """Raises BadUsageData when it is gone or damaged."""
        try:
            with self._path(key).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                contents = _Contents.model_validate_json(str(file["contents"]))
                histories = tuple(
                    History(one.series_id, one.start, one.freq, file[str(i)], synthetic=one.synthetic)
                    for i, one in enumerate(contents.series)
                )
        except (OSError, ValueError, KeyError, BadZipFile) as problem:
            raise BadUsageData(
                f"the training set {self._path(key)} cannot be read",
                why=str(problem).splitlines()[0],
                next_step="shardwright forecast retrain, which takes a new one",
            ) from problem
        return TrainingSet(contents.metric, histories)

    def drop(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npz"
