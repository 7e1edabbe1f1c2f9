"""What every cell program must declare, checked on what it registers (Pulumi's own mocks, no engine)."""

import asyncio
import base64
import json
import runpy
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import pulumi
import pytest
from pydantic import SecretStr

from engine.cli.console import print_json
from engine.errors import AuthenticationFailed, UsageError
from engine.model.placement import Cell
from engine.model.plan import CellPlan, Plan, PlannedNode
from policies.extraction import ingress_facts, instance_facts
from policies.rules import INGRESS_RULES, INSTANCE_RULES, Limits, judged
from providers import aws_api, rest
from providers.base import ProviderSettings
from stacks.registry import program_for, program_module
from tests.e2e.stacks.sandbox_cells import AWS, AZURE, GCP, HARBOR, bought, kept
from tests.e2e.stacks.test_stacks_side_by_side import plan_of

_SECRET = "4dabf18193072939515e22adb298388d"
USER_DATA = "#!/bin/sh\necho join-token\n"


def revealed(value: Any) -> Any:
    """Mocks see secrets as Pulumi sends them: wrapped."""
    if isinstance(value, Mapping):
        if _SECRET in value:
            return revealed(value["value"])
        return {key: revealed(item) for key, item in value.items()}
    return [revealed(item) for item in value] if isinstance(value, list) else value


class Recorder(pulumi.runtime.Mocks):
    """Everything that is registered, as the engine would get it."""

    def __init__(self) -> None:
        self.resources: dict[tuple[str, str], dict[str, Any]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.resources[args.typ, args.name] = dict(args.inputs)
        outputs = {**args.inputs, "name": args.name}
        if args.typ == "azure-native:network:NetworkInterface":
            outputs["ipConfigurations"] = [
                {**c, "privateIPAddress": "10.42.0.4"} for c in args.inputs["ipConfigurations"]
            ]
        return f"{args.name}-id", outputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        return {"id": f"ami-{args.args['filters'][0]['values'][0]}"}


def settings_of(cell: Cell) -> ProviderSettings:
    credentials = {
        "aws": ("access_key_id", "secret_access_key"),
        "gcp": ("service_account_json",),
        "azure": ("tenant_id", "client_id", "client_secret"),
        "network": ("token",),
    }[cell.kind]
    return ProviderSettings(
        name=cell.provider,
        kind=cell.kind,
        account=cell.account,
        regions=(cell.region,),
        endpoint="http://127.0.0.1:9",
        credentials={key: SecretStr("canary") for key in credentials},
    )


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    found = Recorder()
    # Mocks hold on to the event loop that is current when they are set.
    asyncio.set_event_loop(asyncio.new_event_loop())
    pulumi.runtime.set_mocks(found, project="shardwright", stack="s")
    yield found
    asyncio.get_event_loop().close()


def run(program: Any) -> None:
    @pulumi.runtime.test
    def declared() -> None:
        program()

    declared()


def declare(cell: Cell, *nodes: PlannedNode, recorder: Recorder) -> Mapping[tuple[str, str], dict[str, Any]]:
    plan = CellPlan(cell=cell, generation=1, nodes=nodes)
    data = {node.node.id: USER_DATA for node in nodes}
    run(program_for(cell.kind)(cell, plan, settings_of(cell), data))
    return {key: revealed(inputs) for key, inputs in recorder.resources.items()}


class ProgramContract:
    cell: ClassVar[Cell]
    ignored: ClassVar[frozenset[str]]
    """Inputs that the program tells Pulumi to leave as they are."""

    def instance(self, name: str, recorder: Recorder) -> dict[str, Any]:
        return recorder.resources[program_module(self.cell.kind).adoption.instance.type, name]

    def test_every_rule_of_the_pack_is_kept(self, recorder: Recorder) -> None:
        resources = declare(self.cell, bought(self.cell, "n-1", spot=True), bought(self.cell, "n-2"), recorder=recorder)
        limits = Limits(regions=(self.cell.region,))
        instances = [instance_facts(type_, name, inputs) for (type_, name), inputs in resources.items()]
        assert sorted(one.name for one in instances if one is not None) == ["n-1", "n-2"]
        for instance in instances:
            assert [judged(rule, instance, limits) for rule in INSTANCE_RULES if instance] in ([], [()] * 6)
        for (type_, name), inputs in resources.items():
            for ingress in ingress_facts(type_, name, inputs):
                assert judged(INGRESS_RULES[0], ingress, limits) == ()

    def test_the_token_can_be_found_again(self, recorder: Recorder) -> None:
        node = bought(self.cell, "n-1")
        declare(self.cell, node, recorder=recorder)
        # Read as the state has it: what is secret there cannot be read back.
        found = program_module(self.cell.kind).adoption.instance.token(self.instance("n-1", recorder))
        assert found == node.token

    def test_want_of_capacity_is_told_by_the_codes_that_the_provider_is_read_with(self) -> None:
        codes = {"aws": aws_api.NO_CAPACITY, "gcp": rest.NO_CAPACITY, "azure": rest.NO_CAPACITY}
        known = program_module(self.cell.kind).NO_CAPACITY
        assert known is codes.get(self.cell.kind, known)

    def test_a_kept_node_differs_only_in_what_is_ignored(self, recorder: Recorder) -> None:
        node = bought(self.cell, "n-1", spot=True)
        declare(self.cell, node, recorder=recorder)
        before = dict(self.instance("n-1", recorder))
        declare(self.cell, kept(node), recorder=recorder)
        after = self.instance("n-1", recorder)
        assert {key for key in {*before, *after} if before.get(key) != after.get(key)} <= self.ignored

    def test_an_empty_cell_declares_no_instance(self, recorder: Recorder) -> None:
        resources = declare(self.cell, recorder=recorder)
        assert all(instance_facts(type_, name, inputs) is None for (type_, name), inputs in resources.items())


class TestAws(ProgramContract):
    cell = AWS
    ignored = frozenset({"instanceMarketOptions", "rootBlockDevice", "tags"})

    def test_spot_hands_the_ceiling_over(self, recorder: Recorder) -> None:
        node = bought(AWS, "n-1", spot=True)
        declare(AWS, node, recorder=recorder)
        assert node.quote is not None
        spot = self.instance("n-1", recorder)["instanceMarketOptions"]["spotOptions"]
        assert spot["maxPrice"] == str(node.quote.price_ceiling.amount)
        assert spot["instanceInterruptionBehavior"] == "terminate"

    def test_user_data_goes_in_as_it_is(self, recorder: Recorder) -> None:
        declare(AWS, bought(AWS, "n-1"), recorder=recorder)
        assert revealed(self.instance("n-1", recorder))["userData"] == USER_DATA

    def test_the_checks_of_aws_itself_are_skipped_only_at_another_endpoint(self, recorder: Recorder) -> None:
        declare(AWS, recorder=recorder)
        assert revealed(recorder.resources["pulumi:providers:aws", "aws"])["skipRequestingAccountId"] == "true"
        public = settings_of(AWS).model_copy(update={"endpoint": None})
        run(program_for("aws")(AWS, CellPlan(cell=AWS, generation=1, nodes=()), public, {}))
        provider = recorder.resources["pulumi:providers:aws", "aws"]
        assert provider.get("skipCredentialsValidation", "false") == "false"
        assert "skipRequestingAccountId" not in provider
        assert json.loads(provider["allowedAccountIds"]) == [AWS.account]


class TestGcp(ProgramContract):
    cell = GCP
    ignored = frozenset({"metadata"})

    def test_labels_are_legal_and_metadata_exact(self, recorder: Recorder) -> None:
        node = bought(GCP, "n-1")
        declare(GCP, node, recorder=recorder)
        inputs = self.instance("n-1", recorder)
        assert inputs["metadata"]["shardwright-token"] == node.token
        assert all(set(value) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") for value in inputs["labels"].values())
        assert revealed(inputs["metadataStartupScript"]) == USER_DATA

    @pytest.mark.parametrize("keys", [None, "keys.json"])
    def test_an_instance_that_google_shall_vouch_for_has_a_service_account(
        self, recorder: Recorder, keys: str | None
    ) -> None:
        settings = settings_of(GCP).model_copy(update={"attestation_keys": keys})
        node = bought(GCP, "n-1")
        plan = CellPlan(cell=GCP, generation=1, nodes=(node,))
        run(program_for("gcp")(GCP, plan, settings, {node.node.id: USER_DATA}))
        given = self.instance("n-1", recorder).get("serviceAccount")
        assert given == (None if keys is None else {"scopes": ["https://www.googleapis.com/auth/userinfo.email"]})


class TestAzure(ProgramContract):
    cell = AZURE
    ignored = frozenset({"osProfile", "billingProfile", "tags"})

    def test_user_data_is_encoded_and_the_ceiling_a_number(self, recorder: Recorder) -> None:
        declare(AZURE, bought(AZURE, "n-1", spot=True), recorder=recorder)
        inputs = revealed(self.instance("n-1", recorder))
        assert base64.b64decode(inputs["osProfile"]["customData"]).decode() == USER_DATA
        assert inputs["billingProfile"]["maxPrice"] == 0.9
        assert inputs["zones"] == ["1"]


class TestNetwork(ProgramContract):
    cell = HARBOR
    ignored = frozenset({"quoteId", "heldId", "tags"})

    def test_the_network_is_asked_by_its_own_ids(self, recorder: Recorder) -> None:
        node = bought(HARBOR, "n-1")
        assert node.quote is not None
        prefixed = node.model_copy(update={"quote": node.quote.model_copy(update={"id": "harbor/q-1"})})
        declare(HARBOR, prefixed, recorder=recorder)
        assert self.instance("n-1", recorder)["quoteId"] == "q-1"

    def test_no_token_is_said_before_anything_runs(self) -> None:
        settings = settings_of(HARBOR).model_copy(update={"credentials": {}})
        with pytest.raises(AuthenticationFailed, match="no token"):
            program_for("network")(HARBOR, CellPlan(cell=HARBOR, generation=1, nodes=()), settings, {})


class TestPlainPulumi:
    """``pulumi up`` in the repository: stacks/__main__.py."""

    def configure(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
        plan: Plan = plan_of(CellPlan(cell=HARBOR, generation=1, nodes=(bought(HARBOR, "n-1"),)))
        with (folder / "plan.json").open("w", encoding="utf-8") as file, redirect_stdout(file):
            print_json("plan", plan)
        settings = settings_of(HARBOR).model_copy(update={"credentials": {}})
        (folder / "harbor.json").write_text(settings.model_dump_json(), encoding="utf-8")
        given = {"plan": "plan.json", "cell": HARBOR.id, "settings": "harbor.json", "networkToken": "t", **changes}
        pulumi.runtime.set_all_config({f"shardwright:{key}": value for key, value in given.items()})
        monkeypatch.setattr(pulumi.runtime, "get_root_directory", lambda: str(folder))

    def test_the_same_program_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
        self.configure(tmp_path, monkeypatch, userData=json.dumps({"n-1": USER_DATA}))
        run(lambda: runpy.run_module("stacks.__main__", run_name="__main__"))
        inputs = recorder.resources["shardnet:index:Reservation", "n-1"]
        assert revealed(inputs["userData"]) == USER_DATA

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"plan": "none.json"}, "cannot read"),
            ({"cell": "aws/1/nowhere"}, "the plan has no cell 'aws/1/nowhere'"),
            ({"settings": "plan.json"}, "ProviderSettings"),
            ({"plan": "harbor.json"}, "PlanDocument: schema_version"),
        ],
    )
    def test_what_is_wrong_is_named(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        recorder: Recorder,
        changes: dict[str, str],
        said: str,
    ) -> None:
        self.configure(tmp_path, monkeypatch, **changes)
        with pytest.raises(UsageError, match=said):
            runpy.run_module("stacks.__main__", run_name="__main__")
