import numpy as np
import torch

from forecasting.rnn.model import LEVELS, QuantileNetwork, pinball_loss
from forecasting.rnn.windows import Panel
from forecasting.synthetic import synthetic_fleet


def test_quantiles_never_cross_even_untrained() -> None:
    panel = Panel(synthetic_fleet(3, seed=1, days=21), context=24, horizon=6)
    quantiles = QuantileNetwork(8)(panel.gather(np.arange(3), np.full(3, 400)))
    assert quantiles.shape == (3, 6, len(LEVELS))
    assert (quantiles.diff(dim=-1) >= 0).all()


def test_the_loss_skips_gaps_and_is_zero_for_a_perfect_forecast() -> None:
    target = torch.tensor([[1.0, float("nan"), 3.0]])
    perfect = torch.nan_to_num(target, nan=99.0)[..., None].expand(1, 3, len(LEVELS))
    assert pinball_loss(perfect, target).item() == 0.0
    assert pinball_loss(perfect + 1, target).item() > 0.1
    assert pinball_loss(perfect, torch.full((1, 3), float("nan"))).item() == 0.0
