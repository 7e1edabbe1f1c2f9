"""What a running sandbox tells the rest of the program: one file, readable by its owner only."""

import os
from decimal import Decimal
from pathlib import Path

from pydantic import SecretStr, ValidationError

from engine.errors import UsageError
from engine.model.value import Utc, Value
from providers.base import ProviderSettings

FILE_NAME = "sandbox.json"
DEFAULT_PROVIDERS = ("aws", "gcp", "azure", "harbor", "agora")


class ProviderSpec(Value):
    """One sandbox provider server: how it is started and how it is presented."""

    name: str
    kind: str
    module: str
    plugin: str | None = None
    """The Pulumi plugin that a stand-in takes the place of; None: the real plugin is ours and works here too."""
    account: str
    regions: tuple[str, ...]
    tls: bool = False
    reclaim_notice_seconds: float


SPECS = {
    spec.name: spec
    for spec in (
        ProviderSpec(
            name="aws",
            kind="aws",
            module="providers.sandbox.aws",
            plugin="aws",
            account="123456789012",
            regions=("us-east-1", "eu-west-1"),
            reclaim_notice_seconds=120.0,
        ),
        ProviderSpec(
            name="gcp",
            kind="gcp",
            module="providers.sandbox.gcp",
            plugin="gcp",
            account="shardwright-sandbox",
            regions=("us-central1", "europe-west1"),
            reclaim_notice_seconds=30.0,
        ),
        ProviderSpec(
            name="azure",
            kind="azure",
            module="providers.sandbox.azure",
            plugin="azure-native",
            account="00000000-0000-4000-8000-000000000001",
            regions=("eastus", "westeurope"),
            tls=True,
            reclaim_notice_seconds=30.0,
        ),
        ProviderSpec(
            name="harbor",
            kind="network",
            module="providers.sandbox.networks",
            account="shardwright",
            regions=("harbor-eu",),
            reclaim_notice_seconds=60.0,
        ),
        ProviderSpec(
            name="agora",
            kind="network",
            module="providers.sandbox.networks",
            account="shardwright",
            regions=("agora-us",),
            reclaim_notice_seconds=60.0,
        ),
    )
}


class SandboxProvider(Value):
    """One provider as the sandbox serves it; ``settings()`` is what shardwright.toml would have said."""

    name: str
    kind: str
    account: str
    regions: tuple[str, ...]
    endpoint: str
    ca_file: str | None = None
    metadata_url: str | None = None
    attestation_keys: str | None = None
    """The file to check its instances' signed identity against."""
    credentials: tuple[tuple[str, str], ...] = ()
    """Made up by the sandbox for this run, worthless outside it; in the clear, hence the file's mode."""
    pid: int

    def settings(self) -> ProviderSettings:
        return ProviderSettings(
            name=self.name,
            kind=self.kind,
            account=self.account,
            regions=self.regions,
            endpoint=self.endpoint,
            ca_file=self.ca_file,
            metadata_url=self.metadata_url,
            attestation_keys=self.attestation_keys,
            credentials={key: SecretStr(value) for key, value in self.credentials},
        )


class SandboxInfo(Value):
    """Written at the very start with the tag alone (``ready`` False), so that a crash at any moment can be cleaned."""

    schema_version: int = 1
    tag: str
    """Everything the sandbox makes is named TAG… or carries it in its environment."""
    state_dir: str
    started_at: Utc
    supervisor_pid: int
    ready: bool = False
    namespaces: bool = True
    limits: tuple[str, ...] = ()
    """What this run cannot do and a full one could; empty: nothing is lost."""
    seed: int = 0
    meter_speed: Decimal = Decimal(1)
    providers: tuple[SandboxProvider, ...] = ()
    plugins: tuple[tuple[str, int], ...] = ()
    """(Pulumi plugin, port) of the stand-ins, to be attached to the engine."""
    ca_file: str | None = None
    control_url: str = ""
    control_token: str = ""
    relay_host: str = "127.0.0.1"
    """Agents reach a control plane on 127.0.0.1:PORT at relay_host:PORT, once ``open_relay(PORT)`` was asked for."""
    metadata_url: str | None = None
    """None without namespaces: every node then has its own, in SHARDWRIGHT_METADATA_URL."""
    underlay_subnet: str | None = None
    underlay_root_address: str | None = None

    def provider(self, name: str) -> SandboxProvider:
        found = next((provider for provider in self.providers if provider.name == name), None)
        if found is None:
            raise UsageError(
                f"the sandbox has no provider {name!r}", why=f"it runs {', '.join(p.name for p in self.providers)}"
            )
        return found

    def save(self, state_dir: Path) -> None:
        """Atomically, mode 0600."""
        path = state_dir / FILE_NAME
        fresh = path.with_suffix(".json.new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(self.model_dump_json(indent=2))
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> "SandboxInfo":
        """From the state folder or the file itself. Raises UsageError when no sandbox left its mark there."""
        file = path / FILE_NAME if path.is_dir() else path
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError as error:
            raise UsageError(f"no sandbox in {path}", next_step="python -m providers.sandbox up --state DIR") from error
        except (OSError, ValidationError) as error:
            raise UsageError(f"{file} cannot be read", why=str(error)) from error
