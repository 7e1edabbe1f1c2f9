"""``kill -9`` of the engine in the middle of an update: nothing is created twice, nothing is lost."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.errors import ConcurrentUpdate, ShardwrightError
from engine.model.placement import Cell
from providers.base import SupportsInventory
from providers.registry import open_provider
from stacks.events import StepEvent
from stacks.state_files import PROJECT, StateFiles
from tests.e2e.stacks.sandbox_cells import AWS, GCP, HARBOR, Cloud, MakeDriver, bought, cell_plan, user_data

_PATIENCE_SECONDS = 20.0


def killer(files: StateFiles, cell: Cell, happened: Callable[[], bool]) -> Callable[[StepEvent], None]:
    """Stops the engine at its first step, lets it run for moments until the provider has created what is waited for,
    and kills it before it can write that down."""
    begun = threading.Event()

    def on_step(step: StepEvent) -> None:
        if step.op != "create" or begun.is_set():
            return
        begun.set()
        pid = files.locks(cell.stack_name)[0].pid
        deadline = time.monotonic() + _PATIENCE_SECONDS
        os.kill(pid, signal.SIGSTOP)
        while not happened() and time.monotonic() < deadline:
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.002)
            os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)

    return on_step


@pytest.mark.parametrize("cell", [AWS, GCP, HARBOR], ids=lambda cell: cell.kind)
def test_an_instance_created_but_not_recorded_is_adopted(
    cell: Cell, make_driver: MakeDriver, cloud: Cloud, tmp_path: Path
) -> None:
    files = StateFiles(f"file://{tmp_path / 'state'}")
    nodes = [bought(cell, f"killed-{cell.kind}-{n}", cloud) for n in (1, 2)]
    names = {node.node.id for node in nodes}
    provider = open_provider(cloud.settings[cell.provider], clock=SystemClock())
    assert isinstance(provider, SupportsInventory)

    def created() -> bool:
        return bool(cloud.instances(cell.provider))

    try:
        dying = make_driver(on_event=killer(files, cell, created))
        with pytest.raises(ShardwrightError):
            dying.up(cell_plan(cell, *nodes), user_data(*nodes))
        begun = {operation["resource"]["urn"].rpartition("::")[2] for operation in files.pending(cell.stack_name)}
        before = {found.node: found.instance_id for found in cloud.instances(cell.provider)}

        assert begun & set(before), "something was created that the state does not know"

        # A control plane that starts afresh, as after a crash.
        driver = make_driver()
        with pytest.raises(ConcurrentUpdate, match="recover"):
            driver.up(cell_plan(cell, *nodes), user_data(*nodes))
        report = driver.recover(cell, provider)
        assert {urn.rpartition("::")[2] for urn in report.adopted} & names
        outcome = driver.up(cell_plan(cell, *nodes), user_data(*nodes))
        after = {found.node: found.instance_id for found in cloud.instances(cell.provider)}
        assert len(cloud.instances(cell.provider)) == 2
        assert set(after) == names
        assert {name: after[name] for name in before} == before, "what ran before runs on"
        assert len(outcome.nodes) == 2
        assert driver.up(cell_plan(cell, *nodes), user_data(*nodes)).changes.none
        assert driver.recover(cell, provider).nothing_to_do
    finally:
        make_driver().recover(cell, provider)
        make_driver().destroy(cell)
    assert cloud.instances(cell.provider) == []


def test_a_network_created_but_not_recorded_is_found_by_its_token(
    make_driver: MakeDriver, cloud: Cloud, tmp_path: Path
) -> None:
    """AWS chooses a VPC's id; an interrupted update must not leave one behind."""
    files = StateFiles(f"file://{tmp_path / 'state'}")
    provider = open_provider(cloud.settings["aws"], clock=SystemClock())
    assert isinstance(provider, SupportsInventory)
    ec2 = _ec2(cloud)
    node = bought(AWS, "killed-vpc-1")

    def ours() -> list[str]:
        filters = [{"Name": "tag:shardwright-cell", "Values": [AWS.id]}]
        return [vpc["VpcId"] for vpc in ec2.describe_vpcs(Filters=filters)["Vpcs"]]

    try:
        dying = make_driver(on_event=killer(files, AWS, lambda: bool(ours())))
        with pytest.raises(ShardwrightError):
            dying.up(cell_plan(AWS, node), user_data(node))
        before = ours()
        assert len(before) == 1
        driver = make_driver()
        report = driver.recover(AWS, provider)
        # On a busy machine the engine sometimes gets as far as recording it before it dies: then nothing is adopted.
        assert [urn.rpartition("::")[2] for urn in report.adopted] in (["vpc"], [])
        driver.up(cell_plan(AWS, node), user_data(node))
        assert ours() == before
    finally:
        make_driver().recover(AWS, provider)
        make_driver().destroy(AWS)
    assert ours() == []


@pytest.mark.parametrize("content", ["", '{"pid": 1, "hostname": "gone"'], ids=["empty", "half"])
def test_a_lock_that_a_full_disk_cut_off_is_broken_before_and_after_the_stack_is_there(
    make_driver: MakeDriver, cloud: Cloud, tmp_path: Path, content: str
) -> None:
    """The engine would not even make the stack: it reads every lock first."""
    provider = open_provider(cloud.settings["harbor"], clock=SystemClock())
    assert isinstance(provider, SupportsInventory)
    node = bought(HARBOR, f"cut-lock-{len(content)}", cloud)
    lock = tmp_path / "state/.pulumi/locks/organization" / PROJECT / HARBOR.stack_name / "cut.json"
    try:
        for _ in ("before", "after"):
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.write_text(content)
            driver = make_driver()
            with pytest.raises(ConcurrentUpdate, match="recover"):
                driver.up(cell_plan(HARBOR, node), user_data(node))
            assert driver.recover(HARBOR, provider).nothing_to_do
            assert len(driver.up(cell_plan(HARBOR, node), user_data(node)).nodes) == 1
    finally:
        make_driver().destroy(HARBOR)
    assert cloud.instances("harbor") == []


def test_a_note_of_the_selected_stack_that_a_full_disk_cut_off_stops_no_update(
    make_driver: MakeDriver, cloud: Cloud, tmp_path: Path
) -> None:
    """Not part of any state, yet no command of the engine gets past it."""
    node = bought(HARBOR, "cut-note-1", cloud)
    driver = make_driver()
    try:
        driver.up(cell_plan(HARBOR, node), user_data(node))
        (note,) = (tmp_path / "work/pulumi-home/workspaces").iterdir()
        for after in (driver, make_driver()):
            note.write_text("")
            assert after.up(cell_plan(HARBOR, node), user_data(node)).changes.none
    finally:
        make_driver().destroy(HARBOR)


def _ec2(cloud: Cloud):  # type: ignore[no-untyped-def]
    import boto3

    settings = cloud.settings["aws"]
    return boto3.client(
        "ec2",
        region_name=AWS.region,
        endpoint_url=settings.endpoint,
        aws_access_key_id=settings.credentials["access_key_id"].get_secret_value(),
        aws_secret_access_key=settings.credentials["secret_access_key"].get_secret_value(),
    )
