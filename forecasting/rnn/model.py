"""The network: a GRU encoder-decoder with quantile heads around a learned mixture of past values."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from forecasting.rnn.windows import ANCHORS, DECODER_FEATURES, ENCODER_FEATURES, Batch

LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
MEDIAN = LEVELS.index(0.5)


class QuantileNetwork(nn.Module):
    """Scaled quantiles of each step, shape (B, horizon, len(LEVELS)), never crossing.

    The median is a mixture of the anchors (the same hour of the last 14 days, the last value, the last day's mean)
    with weights that the decoder picks per step, plus a correction; the other levels are non-negative steps away.
    """

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        self.hidden = hidden
        self.encoder = nn.GRU(ENCODER_FEATURES, hidden, batch_first=True)
        self.decoder = nn.GRU(DECODER_FEATURES, hidden, batch_first=True)
        seen = hidden + DECODER_FEATURES
        self.mix = nn.Linear(seen, ANCHORS)
        self.correction = nn.Sequential(nn.Linear(seen, hidden), nn.GELU(), nn.Linear(hidden, 1))
        self.spread = nn.Sequential(nn.Linear(seen, hidden), nn.GELU(), nn.Linear(hidden, len(LEVELS) - 1))

    def forward(self, batch: Batch) -> Tensor:
        _, state = self.encoder(batch.encoder)
        decoded, _ = self.decoder(batch.decoder, state)
        seen = torch.cat([decoded, batch.decoder], dim=-1)
        weights = self.mix(seen).masked_fill(~batch.known, -1e9).softmax(dim=-1)
        median = (weights * batch.anchors).sum(dim=-1, keepdim=True) + self.correction(seen)
        steps = functional.softplus(self.spread(seen) - 1.5)
        below = median - steps[..., :MEDIAN].flip(-1).cumsum(-1).flip(-1)
        above = median + steps[..., MEDIAN:].cumsum(-1)
        return torch.cat([below, median, above], dim=-1)


def pinball_loss(quantiles: Tensor, target: Tensor) -> Tensor:
    """Mean over levels and measured steps, in scaled units; 0 when nothing was measured."""
    measured = target.isfinite()
    error = torch.where(measured, target, 0.0)[..., None] - quantiles
    levels = torch.tensor(LEVELS, dtype=quantiles.dtype, device=quantiles.device)
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1)
    return (loss * measured).sum() / measured.sum().clamp(min=1)
