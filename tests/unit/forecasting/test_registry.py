import os
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np

from engine.clock import ManualClock
from forecasting.base import History
from forecasting.registry import ModelRegistry, fingerprint, load_or_train
from forecasting.rnn.train import TrainingPlan
from forecasting.rnn.trained import TrainedRnn


def test_what_is_saved_comes_back_and_forecasts_the_same(
    tmp_path: Path, trained: TrainedRnn, fleet: list[History], still: ManualClock
) -> None:
    registry = ModelRegistry(tmp_path / "models")
    card = registry.save("abc", trained, series=len(fleet), now=still.now())
    found = registry.find("abc")
    assert found is not None
    assert (card.report, card.plan, found.freq) == (trained.report, trained.plan, trained.freq)
    for a, b in zip(trained.forecast(fleet, 6), found.forecast(fleet, 6), strict=True):
        assert np.array_equal(a.sample_paths(30), b.sample_paths(30))
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["abc"]


def test_absent_and_damaged_models_are_not_found(tmp_path: Path, trained: TrainedRnn, still: ManualClock) -> None:
    registry = ModelRegistry(tmp_path)
    assert registry.find("abc") is None
    registry.save("abc", trained, series=1, now=still.now())
    weights = tmp_path / "abc" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert registry.find("abc") is None
    registry.save("abc", trained, series=1, now=still.now())
    assert registry.find("abc") is not None
    (tmp_path / "abc" / "model.json").write_text("{}")
    assert registry.find("abc") is None


def test_the_second_time_it_is_loaded(
    tmp_path: Path, fleet: list[History], plan: TrainingPlan, still: ManualClock
) -> None:
    registry, quick = ModelRegistry(tmp_path), plan.model_copy(update={"steps": 3})
    first, was_loaded = load_or_train(registry, fleet[:1], quick, clock=still)
    second, is_loaded = load_or_train(registry, fleet[:1], quick, clock=still)
    assert (was_loaded, is_loaded) == (False, True)
    assert second.report == first.report


def test_the_fingerprint_is_of_values_names_and_plan(fleet: list[History], plan: TrainingPlan) -> None:
    history = fleet[0]
    changed = history.values.copy()
    changed[-1] += 1e-9
    others = [
        fingerprint([History(history.series_id, history.start, history.freq, changed)], plan),
        fingerprint([History("x", history.start, history.freq, history.values)], plan),
        fingerprint([History(history.series_id, history.start, history.freq / 2, history.values)], plan),
        fingerprint([history], plan.model_copy(update={"seed": 2})),
        fingerprint([history, history], plan),
    ]
    assert len({fingerprint([history], plan), *others}) == 6
    assert fingerprint([history], plan) == fingerprint([history], plan.model_copy())


def test_a_draft_is_no_network_and_goes_when_its_writer_is_gone(
    tmp_path: Path, trained: TrainedRnn, still: ManualClock
) -> None:
    registry = ModelRegistry(tmp_path)
    registry.save("abc", trained, series=1, now=still.now())
    for name, age in (("new", timedelta(hours=1)), ("old", timedelta(days=2))):
        draft = tmp_path / f".draft-{name}"
        shutil.copytree(tmp_path / "abc", draft)
        changed = (still.now() - age).timestamp()
        os.utime(draft, (changed, changed))
    assert [card.fingerprint for card in registry.cards()] == ["abc"]
    registry.sweep((), still.now())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".draft-new", "abc"]
