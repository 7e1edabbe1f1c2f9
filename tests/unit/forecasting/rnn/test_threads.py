import pytest
import torch

from forecasting.rnn.threads import one_thread


@one_thread()
def fails() -> None:
    raise KeyError(torch.get_num_threads())


def test_the_number_of_threads_comes_back_whatever_happens() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError, match="1"):
            fails()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
