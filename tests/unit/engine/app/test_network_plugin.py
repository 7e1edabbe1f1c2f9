import sys

import pytest

from engine.app.network_plugin import network_plugin
from engine.errors import MissingPart


def saying(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_the_port_that_it_names() -> None:
    with network_plugin(saying("import time; print(4711, flush=True); time.sleep(60)")) as port:
        assert port == 4711


@pytest.mark.parametrize(
    ("code", "seconds", "why"),
    [
        ("import time; time.sleep(60)", 0.0, "it named no port within 0 s"),
        ("print('no room', flush=True)", 60.0, "it said 'no room'"),
        ("pass", 60.0, "it named no port"),
    ],
)
def test_one_that_hangs_or_fails_is_a_missing_part(code: str, seconds: float, why: str) -> None:
    with pytest.raises(MissingPart, match="shardnet") as missing, network_plugin(saying(code), seconds=seconds):
        pass
    assert why in missing.value.why
    assert code in missing.value.next_step
