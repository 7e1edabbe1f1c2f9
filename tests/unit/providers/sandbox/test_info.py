from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.errors import UsageError
from providers.registry import KINDS
from providers.sandbox.info import DEFAULT_PROVIDERS, SPECS, SandboxInfo, SandboxProvider

INFO = SandboxInfo(
    tag="sw12ab9f",
    state_dir="/nowhere",
    started_at=datetime(2026, 11, 23, tzinfo=UTC),
    supervisor_pid=1,
    providers=(
        SandboxProvider(
            name="gcp",
            kind="gcp",
            account="p",
            regions=("r1", "r2"),
            endpoint="http://127.0.0.1:1",
            credentials=(("service_account_json", "canary"),),
            pid=2,
        ),
    ),
)


def test_it_comes_back_from_its_file_which_is_for_its_owner(tmp_path: Path) -> None:
    INFO.save(tmp_path)
    INFO.save(tmp_path)
    assert SandboxInfo.load(tmp_path) == SandboxInfo.load(tmp_path / "sandbox.json") == INFO
    assert [entry.name for entry in tmp_path.iterdir()] == ["sandbox.json"]
    assert (tmp_path / "sandbox.json").stat().st_mode & 0o777 == 0o600


def test_a_provider_reads_as_its_table_of_the_configuration() -> None:
    settings = INFO.provider("gcp").settings()
    assert (settings.kind, settings.regions, settings.endpoint) == ("gcp", ("r1", "r2"), "http://127.0.0.1:1")
    assert settings.credentials["service_account_json"].get_secret_value() == "canary"
    assert "canary" not in repr(settings)
    with pytest.raises(UsageError, match="no provider 'aws'"):
        INFO.provider("aws")


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"tag": 1}'])
def test_a_file_that_is_absent_or_broken_is_an_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "sandbox.json").write_text(content)
    with pytest.raises(UsageError, match=r"no sandbox in|cannot be read"):
        SandboxInfo.load(tmp_path)


def test_every_provider_of_the_sandbox_is_of_a_known_kind() -> None:
    assert set(DEFAULT_PROVIDERS) == set(SPECS)
    assert {spec.kind for spec in SPECS.values()} == set(KINDS)
