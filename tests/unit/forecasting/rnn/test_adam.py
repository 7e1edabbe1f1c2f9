import copy
import subprocess
import sys

import torch
from torch import nn

from forecasting.rnn.adam import Adam


def test_it_takes_the_same_steps_as_the_one_of_torch() -> None:
    torch.manual_seed(0)
    ours = nn.Linear(3, 2)
    theirs = copy.deepcopy(ours)
    adam = Adam(ours.parameters(), weight_decay=0.01)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.05, weight_decay=0.01)
    for _ in range(20):
        given = torch.randn(8, 3)
        ours(given).square().mean().backward()
        adam.step(0.05, longest_gradient=0.5)
        reference.zero_grad()
        theirs(given).square().mean().backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
        assert a.grad is None


def test_training_does_not_load_the_compiler_of_torch() -> None:
    code = (
        "import sys, torch; from forecasting.rnn.adam import Adam; layer = torch.nn.Linear(2, 1);"
        "layer(torch.ones(1, 2)).sum().backward();"
        "Adam(layer.parameters(), weight_decay=0.0).step(0.1, longest_gradient=1.0);"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
