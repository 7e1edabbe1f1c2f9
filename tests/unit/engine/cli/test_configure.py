"""A bad configuration file: all that is wrong with it at once, and never a secret on the screen."""

import json
from pathlib import Path

import pytest

from tests.command import InProcess
from tests.small_configuration import GOOD


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shardwright.toml"
    path.write_text(GOOD)
    return path


def change(file: Path, *pairs: tuple[str, str]) -> Path:
    text = file.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    return file


def test_a_good_file_is_good_and_can_be_shown(command: InProcess, file: Path) -> None:
    told = command("config", "check", "--config", file)
    assert (told.code, told.out) == (0, "")
    assert "good; 1 providers, 1 cells, 1 pools" in told.err
    shown = command("config", "show", "--config", file, "--output", "json")
    assert shown.data["providers"][0]["credentials"] == {"access_key_id": {"env": "KEY_ID", "file": None}}


def test_all_problems_are_told_at_once_with_path_and_guess(command: InProcess, file: Path) -> None:
    change(
        file,
        ('shard_type = "cpu.small"', 'shard_type = "cpu.smal"'),
        ('kind = "aws"', 'kind = "awz"'),
        ("quantile = 0.95", "quantile = 95"),
        ("[pulumi]", "[policy]\nmax_spot_shar = 0.5\nhourly_budget = -1\n\n[pulumi]"),
        ("vcpus = 1", "vcpus = 0"),
        ('pool = "web" }', 'pool = "wbe" }'),
        ('id = "web"', 'id = "web"\nregions = ["us-est-1"]\nproviders = ["asw"]'),
    )
    told = command("config", "check", "--config", file)
    told.refused(
        2,
        "9 problems",
        "policy.max_spot_shar: unknown key; did you mean 'max_spot_share'?",
        "policy.hourly_budget: Input should be greater than 0",
        "risk_classes.0.quantile: Input should be less than 1 (got 95)",
        "shard_types.0.vcpus: Input should be greater than 0",
        "providers.0.kind: unknown provider kind 'awz'; did you mean 'aws'?",
        "pools.0.shard_type: unknown shard type 'cpu.smal'; did you mean 'cpu.small'?",
        "pools.0.regions: unknown region 'us-est-1'; did you mean 'us-east-1'?",
        "pools.0.providers: unknown provider 'asw'; did you mean 'aws'?",
        "workloads.0.components.0.pool: unknown pool 'wbe'; did you mean 'web'?",
        f"shardwright config check --config {file}",
    )


@pytest.mark.parametrize("arguments", [("run",), ("offers",), ("plan",), ("nodes",), ("bills", "report")])
def test_every_command_refuses_a_bad_file(command: InProcess, file: Path, arguments: tuple[str, ...]) -> None:
    change(file, ('risk_class = "gold"', 'risk_class = "gld"'))
    command(*arguments, "--config", file).refused(2, "unknown risk class 'gld'; did you mean 'gold'?")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    "pair",
    [
        ('{ env = "PHRASE" }', '"hunter2"'),
        ('{ env = "KEY_ID" }', '"hunter2"'),
        ('{ env = "KEY_ID" }', '{ env = "KEY_ID", file = "hunter2" }'),
        ("[pulumi]", '[state]\ndatabase_url = "mysql://user:hunter2@host/db"\n[pulumi]'),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(command: InProcess, file: Path, pair: tuple[str, str]) -> None:
    told = command("config", "check", "--config", change(file, pair))
    told.refused(2, "1 problem\n")
    assert "hunter2" not in told.err


def test_passwords_in_urls_are_not_shown(command: InProcess, file: Path) -> None:
    change(
        file,
        (
            "[pulumi]",
            '[state]\ndatabase_url = "postgresql://user:hunter2@db/x"\n'
            '[[forecast.sources]]\nname = "p"\nkind = "prometheus"\nquery = "up"\nurl = "https://u:hunter2@prom"\n[pulumi]',
        ),
    )
    for output in ("json", "table"):
        told = command("config", "show", "--config", file, "--output", output)
        assert told.code == 0, told.err
        assert "hunter2" not in told.out + told.err
    shown = command("config", "show", "--config", file, "--output", "json").data
    assert shown["state"]["database_url"] == "postgresql://user:***@db/x"
    change(file, ('kind = "prometheus"', 'kind = "prometheus"\ntimeout_seconds = "https://u:hunter2@prom"'))
    told = command("config", "check", "--config", file)
    told.refused(2, "timeout_seconds")
    assert "hunter2" not in told.err


def test_names_that_are_there_twice(command: InProcess, file: Path) -> None:
    change(file, ('pool = "web" }]', 'pool = "web" }, { name = "api", pool = "web" }]'))
    command("config", "check", "--config", file).refused(2, "workloads.0.components: 'api' is there twice")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = ", "is not TOML"),
        (b"\xff\xfe\x00", "is not TOML"),
        (b"", "4 problems"),
        (None, "No such file or directory"),
    ],
)
def test_what_is_no_configuration_at_all(command: InProcess, tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "some.toml"
    if content is not None:
        path.write_bytes(content)
    command("config", "check", "--config", path).refused(2, said, str(path))


def test_no_configuration_anywhere(command: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command("plan").refused(2, "there is no configuration", "shardwright sandbox up")


def test_missing_credentials_are_three_and_name_where_they_were_looked_for(
    command: InProcess, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY_ID", raising=False)
    command("offers", "--config", file).refused(
        3, "providers.aws.credentials.access_key_id: no credentials", "KEY_ID is not set", "export KEY_ID="
    )
    change(file, ('{ env = "KEY_ID" }', f'{{ file = "{file.parent}/none" }}'))
    command("offers", "--config", file).refused(3, f"{file.parent}/none: No such file or directory")
    change(file, (f'credentials.access_key_id = {{ file = "{file.parent}/none" }}', ""))
    command("offers", "--config", file).refused(3, "aws: no credentials", "credentials.access_key_id")


def test_a_passphrase_that_is_missing(command: InProcess, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it no stack can be opened: said before anything is bought."""
    monkeypatch.delenv("PHRASE", raising=False)
    monkeypatch.setenv("KEY_ID", "id")
    change(file, ("regions = [", 'endpoint = "http://127.0.0.1:9"\nregions = ['))
    change(file, ("access_key_id = ", 'secret_access_key = { env = "KEY_ID" }\ncredentials.access_key_id = '))
    change(file, ('name = "demo"', f'name = "demo"\n[state]\ndirectory = "{file.parent}/state"\n'))
    command("run", "--config", file).refused(3, "pulumi.passphrase: no credentials", "export PHRASE=")


def test_a_state_folder_that_cannot_be(command: InProcess, file: Path) -> None:
    (file.parent / "taken").write_text("a file")
    change(file, ('name = "demo"', f'name = "demo"\n[state]\ndirectory = "{file.parent}/taken"\n'))
    command("plan", "--config", file).refused(1, "taken", "state.directory")


def test_a_control_store_that_is_none(command: InProcess, file: Path) -> None:
    state = file.parent / "state"
    state.mkdir()
    (state / "control.sqlite").write_bytes(b"something else" * 1000)
    change(file, ('name = "demo"', f'name = "demo"\n[state]\ndirectory = "{state}"\n'))
    command("plan", "--config", file).refused(1, "the control store cannot be used", "file is not a database")
    assert (state / "control.sqlite").read_bytes() == b"something else" * 1000


def test_empty_state_prints_empty_json(command: InProcess, file: Path) -> None:
    change(file, ('name = "demo"', f'name = "demo"\n[state]\ndirectory = "{file.parent}/state"\n'))
    for name in ("nodes", "shards"):
        assert command(name, "--config", file, "--output", "json").data == []
    assert command("plan", "--config", file, "--output", "json").data is None
    bills = command("bills", "report", "--config", file, "--output", "json")
    assert (bills.code, json.loads(bills.out)["kind"]) == (0, "bills")
    command("resolve", "shard://shop/web/api", "--config", file).refused(2, "is not known", "shardwright shards")
    command("resolve", "shop/web", "--config", file).refused(2, "is not a shard name", "shard://NAMESPACE")
