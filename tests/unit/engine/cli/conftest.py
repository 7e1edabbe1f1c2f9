import pytest

from tests.command import InProcess


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.delenv("SHARDWRIGHT_CONFIG", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return InProcess(capfd)
