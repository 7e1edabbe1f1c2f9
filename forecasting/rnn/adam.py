"""Adam with decoupled weight decay, for a handful of small tensors.

``torch.optim`` imports the whole compiler of torch on first use, which costs seconds of a budget of seconds.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Adam:
    """Kingma and Ba's update with their constants, and the decay of Loshchilov and Hutter."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._weight_decay = weight_decay
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, rate: float, *, longest_gradient: float) -> None:
        """Use up the gradients, scaled down together to the norm ``longest_gradient``; they are None afterwards."""
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        norm = torch.sqrt(sum(((g * g).sum() for g in gradients), torch.zeros(())))
        share = torch.clamp(longest_gradient / (norm + 1e-6), max=1.0)
        self._steps += 1
        for parameter, gradient, mean, square in zip(
            self._parameters, gradients, self._means, self._squares, strict=True
        ):
            self._move(parameter, gradient * share, mean, square, rate)
            parameter.grad = None

    def _move(self, parameter: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, rate: float) -> None:
        mean.lerp_(gradient, 0.1)
        square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        unbiased = (square / (1 - 0.999**self._steps)).sqrt_().add_(1e-8)
        parameter.mul_(1 - rate * self._weight_decay)
        parameter.addcdiv_(mean, unbiased, value=-rate / (1 - 0.9**self._steps))
