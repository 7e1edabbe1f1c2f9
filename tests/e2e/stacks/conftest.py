"""Real Pulumi engine, real sandbox servers, attached plugins; each started once for these tests."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from pydantic import SecretStr

from engine.clock import SystemClock
from stacks.driver import PulumiCellDriver
from stacks.engine_binary import install
from tests.e2e.stacks.sandbox_cells import Cloud, MakeDriver, Process, settings_for


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(str(folder / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    tls = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    servers = {
        "aws": Process("providers.sandbox.aws"),
        "gcp": Process("providers.sandbox.gcp"),
        "azure": Process("providers.sandbox.azure", *tls),
        "harbor": Process("providers.sandbox.networks", "--name", "harbor"),
    }
    plugins = {
        "aws": Process("providers.sandbox.plugins", "aws"),
        "gcp": Process("providers.sandbox.plugins", "gcp"),
        "azure-native": Process("providers.sandbox.plugins", "azure-native", SSL_CERT_FILE=str(folder / "ca.pem")),
        "shardnet": Process("providers.network.plugin"),
    }
    try:
        ports = {name: process.port for name, process in servers.items()}
        key = httpx.get(f"http://127.0.0.1:{ports['gcp']}/_sandbox/service-account", trust_env=False).text
        settings = settings_for(ports, str(folder / "ca.pem"), service_account_json=key)
        yield Cloud(settings, {name: plugin.port for name, plugin in plugins.items()})
    finally:
        for process in (*servers.values(), *plugins.values()):
            process.stop()


@pytest.fixture(scope="session")
def engine_root() -> Path:
    return Path(install(print).root)


@pytest.fixture
def make_driver(tmp_path: Path, cloud: Cloud, engine_root: Path) -> MakeDriver:
    """``make_driver(policy_pack=…, on_event=…)``; drivers of one test share their state."""

    def make(**options: object) -> PulumiCellDriver:
        return PulumiCellDriver(
            work_dir=tmp_path / "work",
            state_url=f"file://{tmp_path / 'state'}",
            passphrase=SecretStr("stacks-test-passphrase"),
            engine_root=engine_root,
            settings=cloud.settings,
            plugin_ports=cloud.ports,
            clock=SystemClock(),
            **options,  # type: ignore[arg-type]
        )

    return make
