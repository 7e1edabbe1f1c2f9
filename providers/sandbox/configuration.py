"""shardwright.toml for a running sandbox: the same file a real installation has, pointing at loopback."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from engine.model.value import Value
from providers.sandbox.info import SandboxInfo, SandboxProvider

PASSPHRASE_FILE = "passphrase"  # noqa: S105 (a file name)
CREDENTIALS_FOLDER = "credentials"
_HEAD = "# Written for a running sandbox; a real installation's file differs in its providers only."


class PoolChoice(Value):
    """One pool of the embedded configuration, and the component that it serves."""

    id: str
    component: str
    risk_class: str
    peak_shards: int
    """How many shards the history's peak should need."""
    providers: tuple[str, ...] = ()


DEFAULT_POOLS = (
    PoolChoice(id="web", component="api", risk_class="gold", peak_shards=6),
    PoolChoice(id="ledger", component="db", risk_class="bronze", peak_shards=2, providers=("azure",)),
)
"""The second pool stands for data that must stay with one provider."""


def write_configuration(
    info: SandboxInfo,
    path: Path,
    *,
    name: str,
    state_directory: Path,
    control_port: int,
    pools: tuple[PoolChoice, ...] = DEFAULT_POOLS,
    usage: Path | None = None,
    metric: str | None = None,
) -> Path:
    """Writes ``path`` and, beside it with mode 0600, the secrets it refers to. Returns ``path``."""
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    passphrase = folder / PASSPHRASE_FILE
    if not passphrase.exists():
        _write_secret(passphrase, secrets.token_urlsafe(24))
    lines = [
        _HEAD,
        f"name = {_text(name)}",
        "",
        "[state]",
        f"directory = {_text(str(state_directory))}",
        "",
        "[control]",
        'listen = "127.0.0.1"',
        f"port = {control_port}",
        f"advertise = {_text(f'{info.relay_host}:{control_port}')}",
        "",
        "[pulumi]",
        f"passphrase = {{ file = {_text(str(passphrase))} }}",
        f"attached_plugins = {{ {', '.join(f'{plugin} = {port}' for plugin, port in info.plugins)} }}",
        "",
        "[forecast]",
        *([f"usage = {_text(str(usage.resolve()))}", "replay = true"] if usage else []),
        *([f"metric = {_text(metric)}"] if metric else []),
        "horizon_steps = 24",
        "budget_seconds = 20",
        "",
        # A sandbox that is given its usage ends with its command: nobody would forecast with what it learnt.
        *(["[forecast.retraining]", "enabled = false", ""] if usage else []),
        *_POLICY,
        *(line for provider in info.providers for line in _provider(provider, folder)),
        *(line for pool in pools for line in _pool(pool)),
        "[[workloads]]",
        'namespace = "shop"',
        'name = "web"',
        "components = ["
        + ", ".join(f"{{ name = {_text(pool.component)}, pool = {_text(pool.id)} }}" for pool in pools)
        + "]",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def remove_configuration(path: Path) -> bool:
    """What ``write_configuration`` wrote: the file and its secrets. A file that somebody else wrote stays (False)."""
    try:
        ours = path.read_text(encoding="utf-8").startswith(_HEAD)
    except OSError:
        ours = False
    if not ours:
        return False
    path.unlink(missing_ok=True)
    (path.parent / PASSPHRASE_FILE).unlink(missing_ok=True)
    shutil.rmtree(path.parent / CREDENTIALS_FOLDER, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # where nothing else is in it
    return True


_POLICY = """[policy]
max_provider_share = 0.34
max_spot_share = 0.5
hourly_budget = "2.00"
churn_penalty = 0.4

[[risk_classes]]
name = "gold"
rank = 0
quantile = 0.95
max_shortfall = 0.01

[[risk_classes]]
name = "bronze"
rank = 1
quantile = 0.8
max_shortfall = 0.05

[[shard_types]]
name = "cpu.small"
vcpus = 1
memory_gib = 0.125
storage_iops = 400
network_mbps = 100
min_performance = 0.5
""".splitlines()


def _provider(provider: SandboxProvider, folder: Path) -> Iterator[str]:
    yield "[[providers]]"
    yield f"name = {_text(provider.name)}"
    yield f"kind = {_text(provider.kind)}"
    yield f"account = {_text(provider.account)}"
    yield f"regions = {json.dumps(list(provider.regions))}"
    yield f"endpoint = {_text(provider.endpoint)}"
    if provider.ca_file:
        yield f"ca_file = {_text(provider.ca_file)}"
    if provider.metadata_url:
        yield f"metadata_url = {_text(provider.metadata_url)}"
    if provider.attestation_keys:
        yield f"attestation_keys = {_text(provider.attestation_keys)}"
    for key, value in provider.credentials:
        file = folder / CREDENTIALS_FOLDER / f"{provider.name}.{key}"
        _write_secret(file, value)
        yield f"credentials.{key} = {{ file = {_text(str(file))} }}"
    yield ""


def _pool(pool: PoolChoice) -> Iterator[str]:
    yield "[[pools]]"
    yield f"id = {_text(pool.id)}"
    yield 'shard_type = "cpu.small"'
    yield f"risk_class = {_text(pool.risk_class)}"
    yield f"peak_shards = {pool.peak_shards}"
    if pool.providers:
        yield f"providers = {json.dumps(list(pool.providers))}"
    yield ""


def _text(value: str) -> str:
    """A TOML basic string (JSON's escapes are a subset of TOML's)."""
    return json.dumps(value, ensure_ascii=False)


def _write_secret(path: Path, value: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(value)
