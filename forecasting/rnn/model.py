"""The network: a GRU encoder-decoder with quantile heads around a learned mixture of past values."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from forecasting.rnn.experts import EXPERTS
from forecasting.rnn.levels import LEVELS, MEDIAN
from forecasting.rnn.windows import ANCHORS, DECODER_FEATURES, ENCODER_FEATURES, Batch


class QuantileNetwork(nn.Module):
    """Scaled quantiles of each step, shape (B, horizon, len(LEVELS)), never crossing.

    A mixture of the experts' quantile functions and of the anchors (the same hour of the last 14 days, the last value,
    the last day's mean), with weights that the decoder picks per step; its median is corrected, and the gaps between
    its levels are stretched and widened by non-negative amounts.
    """

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = hidden
        self.encoder = nn.GRU(ENCODER_FEATURES, hidden, batch_first=True)
        self.decoder = nn.GRU(DECODER_FEATURES, hidden, batch_first=True)
        seen = hidden + DECODER_FEATURES
        gaps = len(LEVELS) - 1
        self.trunk = nn.Sequential(nn.Linear(seen, 2 * hidden), nn.GELU())
        self.mix = nn.Linear(2 * hidden, ANCHORS + EXPERTS)
        self.correction = nn.Linear(2 * hidden, 1)
        self.stretch = nn.Linear(2 * hidden, gaps)
        self.widening = nn.Linear(2 * hidden, gaps)
        nn.init.normal_(self.stretch.weight, std=0.01)
        nn.init.zeros_(self.stretch.bias)

    def forward(self, batch: Batch) -> Tensor:
        _, state = self.encoder(batch.encoder)
        decoded, _ = self.decoder(batch.decoder, state)
        seen = self.trunk(torch.cat([decoded, batch.decoder], dim=-1))
        weights = self.mix(seen).masked_fill(~batch.known, -1e9).softmax(dim=-1)
        anchored = (weights[..., :ANCHORS] * batch.anchors).sum(dim=-1, keepdim=True)
        mixed = anchored + torch.einsum("bhk,bhkl->bhl", weights[..., ANCHORS:], batch.experts)
        median = mixed[..., MEDIAN : MEDIAN + 1] + self.correction(seen)
        steps = mixed.diff(dim=-1) * self.stretch(seen).clamp(-3, 3).exp()
        steps = steps + functional.softplus(self.widening(seen) - 4)
        below = median - steps[..., :MEDIAN].flip(-1).cumsum(-1).flip(-1)
        above = median + steps[..., MEDIAN:].cumsum(-1)
        return torch.cat([below, median, above], dim=-1)


def pinball_loss(quantiles: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over levels and measured steps, in scaled units; 0 when nothing was measured. ``weight`` is per window."""
    measured = target.isfinite()
    error = torch.where(measured, target, 0.0)[..., None] - quantiles
    levels = torch.tensor(LEVELS, dtype=quantiles.dtype, device=quantiles.device)
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1)
    if weight is not None:
        loss = loss * weight[:, None]
    return (loss * measured).sum() / measured.sum().clamp(min=1)
