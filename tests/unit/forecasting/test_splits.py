from forecasting.splits import held_out


def test_a_series_is_held_out_with_all_its_metrics() -> None:
    names = [f"vm-{i}" for i in range(400)]
    kept = [name for name in names if held_out(f"{name}:cpu_cores")]
    assert 60 < len(kept) < 140
    assert all(held_out(f"{name}:memory_gib") for name in kept)
