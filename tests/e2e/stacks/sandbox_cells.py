"""Cells, plans and sandbox processes for the tests of the stacks."""

import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
from pydantic import SecretStr

from engine.clock import SystemClock
from engine.model.capacity import Resources
from engine.model.ids import NodeId, OfferId, QuoteId
from engine.model.market import Offer, OfferQuery, PurchaseOption, Quote, Reliability
from engine.model.money import usd
from engine.model.placement import Cell, Node
from engine.model.plan import CellPlan, PlannedNode
from engine.model.value import Interval
from providers.base import ProviderSettings
from providers.registry import open_provider
from providers.sandbox.aws import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from providers.sandbox.contract import INSTANCES, SandboxInstance
from stacks.driver import PolicyPack, PulumiCellDriver

ROOT = Path(__file__).resolve().parents[3]
SECRET = "stacks-test-secret"
_AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
_TERM = Interval(start=_AT, end=_AT + timedelta(hours=24))
_SMALL = Resources(vcpus=2, memory_gib=8)

AWS = Cell(provider="aws", kind="aws", account="123456789012", region="us-east-1")
GCP = Cell(provider="gcp", kind="gcp", account="shardwright-sandbox", region="us-central1")
AZURE = Cell(provider="azure", kind="azure", account="00000000-0000-4000-8000-000000000001", region="eastus")
HARBOR = Cell(provider="harbor", kind="network", account="shardwright", region="harbor-eu")
_ZONES = {"aws": "us-east-1a", "gcp": "us-central1-a", "azure": "1", "harbor": "harbor-eu-a"}
_TYPES = {"aws": "m7i.large", "gcp": "n2-standard-2", "azure": "Standard_D2s_v5", "harbor": "hb.small"}


class Cloud(NamedTuple):
    """A running sandbox: settings by provider name, plugin ports by plugin name."""

    settings: Mapping[str, ProviderSettings]
    ports: Mapping[str, int]

    def instances(self, provider: str) -> list[SandboxInstance]:
        """Those that run."""
        settings = self.settings[provider]
        answer = httpx.get(f"{settings.endpoint}/_sandbox/instances", verify=_trust(settings), trust_env=False)
        return [found for found in INSTANCES.validate_json(answer.content) if found.state != "terminated"]


def _trust(settings: ProviderSettings) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else False


MakeDriver = Callable[..., PulumiCellDriver]


class Process:
    """A child that prints its port first."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SHARDWRIGHT_SANDBOX_SECRET": SECRET, "OPEN_CAPACITY_TOKEN": SECRET, **environment},
        )

    @property
    def port(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip(), f"{self._process.args} ended at once"
        return int(line.split()[-1])

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def settings_for(ports: Mapping[str, int], ca_file: str, *, service_account_json: str) -> dict[str, ProviderSettings]:
    keys = {
        "aws": {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY},
        "gcp": {"service_account_json": service_account_json},
        "azure": {"tenant_id": "tenant", "client_id": "client", "client_secret": SECRET},
        "harbor": {"token": SECRET},
    }
    return {
        cell.provider: ProviderSettings(
            name=cell.provider,
            kind=cell.kind,
            account=cell.account,
            regions=(cell.region,),
            endpoint=f"{'https' if cell is AZURE else 'http'}://127.0.0.1:{ports[cell.provider]}",
            ca_file=ca_file if cell is AZURE else None,
            credentials={key: SecretStr(value) for key, value in keys[cell.provider].items()},
        )
        for cell in (AWS, GCP, AZURE, HARBOR)
    }


def bought(cell: Cell, name: str, cloud: Cloud | None = None, *, spot: bool = False) -> PlannedNode:
    """A node to be bought. A network sells on quotes of its own, so one is asked for there."""
    option = PurchaseOption.SPOT if spot else PurchaseOption.ON_DEMAND
    quote = _network_quote(cell, cloud) if cell.kind == "network" and cloud else _posted_quote(cell, option)
    node = Node(
        id=NodeId(name),
        cell=cell.id,
        zone=_ZONES[cell.provider],
        instance_type=quote.offer.instance_type,
        option=quote.offer.option,
        hourly_price=quote.unit_price,
        resources=quote.offer.resources,
    )
    return PlannedNode(node=node, slots=(), quote=quote, token=f"shard:{cell.id}:{name}:1")


def kept(planned: PlannedNode) -> PlannedNode:
    """The same node in the next plan."""
    return planned.model_copy(update={"quote": None})


def cell_plan(cell: Cell, *nodes: PlannedNode, generation: int = 1) -> CellPlan:
    return CellPlan(cell=cell, generation=generation, nodes=nodes)


def user_data(*nodes: PlannedNode) -> dict[NodeId, str]:
    return {planned.node.id: f"#!/bin/sh\necho join-token-of-{planned.node.id}\n" for planned in nodes}


def _posted_quote(cell: Cell, option: PurchaseOption) -> Quote:
    offer = Offer(
        id=OfferId(f"{cell.id}/{option}"),
        provider=cell.provider,
        account=cell.account,
        region=cell.region,
        zone=_ZONES[cell.provider],
        instance_type=_TYPES[cell.provider],
        resources=_SMALL,
        option=option,
        price=usd("0.05"),
        price_at=_AT,
        reliability=Reliability(correlation_group=cell.id),
    )
    return Quote(
        id=QuoteId(f"{offer.id}/quote"),
        offer=offer,
        quantity=1,
        unit_price=usd("0.05"),
        price_ceiling=usd("0.9"),
        term=_TERM,
        expires_at=_AT + timedelta(hours=1),
        strategy="fixed_price",
    )


def _network_quote(cell: Cell, cloud: Cloud) -> Quote:
    provider = open_provider(cloud.settings[cell.provider], clock=SystemClock())
    offer = next(o for o in provider.offers(OfferQuery(at_least=Resources(vcpus=2, memory_gib=4))))
    start = datetime.now(UTC)
    return provider.quote(offer, 1, Interval(start=start, end=start + timedelta(hours=24)))


PACK = PolicyPack(ROOT / "policies")
