"""Thousands of seeded runs of the real decisions, and proof that the simulator sees what it is there to see."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from agent import fences
from agent.wire import DestinationStatus, Verdict
from engine.errors import NotFound
from engine.migration import decisions, qemu, switch
from engine.migration.base import MoveLimits
from engine.migration.decisions import Act, Ownership, Removal, Sight
from engine.model.move import MovePhase
from tests.move_simulator import control, node
from tests.move_simulator.control import Store
from tests.move_simulator.world import LawBroken, simulate

SEEDS = 2000
SEEDS_TO_BE_CAUGHT = 300
Patch = pytest.MonkeyPatch


def test_two_thousand_seeds_keep_every_law() -> None:
    ends: Counter[MovePhase] = Counter()
    strategies: Counter[str] = Counter()
    for seed in range(SEEDS):
        try:
            world = simulate(seed)
        except LawBroken as broken:
            raise AssertionError(f"seed {seed}: {broken}") from broken
        ends.update(report.phase for report in world.store.reports.values())
        strategies.update(report.strategy for report in world.store.reports.values())
    assert set(ends) == {MovePhase.CLEANED, MovePhase.ABORTED}
    assert min(ends.values()) > SEEDS / 4, "the faults are so many, or so few, that one side is hardly tried"
    assert set(strategies) == {"pre-copy", "post-copy", "stop-and-copy", "cold-restart"}
    assert min(strategies[name] for name in ("post-copy", "cold-restart")) > SEEDS / 50, strategies


def test_a_seed_is_one_run() -> None:
    first, again = simulate(7), simulate(7)
    assert (first.store.reports, first.acknowledged, first.timeline.seconds) == (
        again.store.reports, again.acknowledged, again.timeline.seconds,
    )  # fmt: skip


def test_without_faults_every_move_is_made() -> None:
    made = 0
    for seed in range(150):
        world = simulate(seed, quiet=True)
        made += len(world.store.reports)
        assert {(one.phase, one.error) for one in world.store.reports.values()} == {(MovePhase.CLEANED, "")}
    assert made > 150


# --- what it must catch -----------------------------------------------------------------------------------------------


def no_compare(patch: Patch) -> None:
    """The commit is a plain write."""

    def move(self: Store, _shard: Any, *, expected_epoch: int, to_node: Any, move_id: Any = None) -> Any:
        self.owner, self.epoch, self.moved_by = to_node, max(self.epoch, expected_epoch) + 1, move_id
        return self.get(node.SHARD)

    patch.setattr(Store, "move", move)


def source_resumed_after_commit(patch: Patch) -> None:
    """A copy that was given away runs again at the epoch at which it was."""
    patch.setattr(decisions, "leftovers", resume_always)
    patch.setattr(qemu, "leftovers", resume_always)
    patch.setattr(fences, "may_run", lambda record, move, _: not record.incoming and record.move == move)


def resume_always(_owner: Ownership) -> tuple[Removal, ...]:
    return (Removal.RESUME_SOURCE,)


def no_epochs(patch: Patch) -> None:
    """Nodes obey whatever comes, however old."""
    patch.setattr(fences, "current", lambda *_: None)
    patch.setattr(fences, "in_move", lambda *_: None)
    patch.setattr(fences, "may_run", lambda *_: True)


def not_asking(patch: Patch) -> None:
    """The watchdog takes silence for a yes."""
    patch.setattr(node.SimNode, "watch", watch_without_asking)


def watch_without_asking(self: node.SimNode) -> None:
    here = self.guest
    if self.alive and here is not None and here.alive and here.record.move and not here.record.incoming:
        silent = self.world.timeline.seconds - here.heard > fences.UNHEARD_SECONDS
        if silent and not here.running and not here.busy:
            self.world.starts(here)


def answering_without_deciding(patch: Patch) -> None:
    """The store says whose the shard is, and a commit may still follow."""
    patch.setattr(control, "keep", read_only)


def read_only(shards: Any, who: Any, shard: Any, _asked: Any) -> Verdict:
    found = shards.get(shard)
    return Verdict(yours=found.node == who, epoch=found.epoch)


def no_watchdog(patch: Patch) -> None:
    patch.setattr(node.SimNode, "watch", lambda _: None)


def no_sweep(patch: Patch) -> None:
    patch.setattr(control, "sweep", lambda *_: ())


def given_back_on_silence(patch: Patch) -> None:
    """A destination that does not answer is taken for dead."""
    real = decisions.next_act

    def hasty(seen: decisions.Observation) -> Act:
        if seen.owner is Ownership.DESTINATION and seen.destination_sight is Sight.SILENT:
            return Act.GIVE_BACK
        return real(seen)

    def give_back(self: switch.Switch) -> None:
        with suppress(Exception):
            self._destination.abort(self._shard, self._command(1))
        self._context.shards.move(
            self._shard, expected_epoch=self._plan.epoch + 1, to_node=self._request.source, move_id=self._request.id
        )

    patch.setattr(switch, "next_act", hasty)
    patch.setattr(switch.Switch, "_give_back", give_back)


def no_bound(patch: Patch) -> None:
    patch.setattr(switch.Switch, "_overdue", lambda _: False)
    patch.setattr(MoveLimits, "precopy", 1e6, raising=False)
    patch.setattr(switch, "advise", lambda *_samples, **_more: switch.Advice(verb=switch.Verb.KEEP_ON))


def rollback_undecided(patch: Patch) -> None:
    """A rollback tells the nodes, but not the store."""
    patch.setattr(qemu.QemuMove, "_keep", lambda *_: None)
    patch.setattr(qemu, "owner_now", lambda _shards, _request, before: (Ownership.KEPT, before))


def aborts_without_looking(patch: Patch) -> None:
    """Whatever is at a node is killed, and its absence is told unseen."""

    def abort(self: node.SimNode, command: Any) -> DestinationStatus:
        self._discard()
        return DestinationStatus(present=False)

    patch.setattr(node.SimNode, "abort", abort)


def no_cold_restart(patch: Patch) -> None:
    """Memory that is gone with its node is waited for."""
    patch.setattr(switch, "out_of_patience", lambda _: Act.LOOK_AGAIN)


def begun_boot_taken_for_done(patch: Patch) -> None:
    """A guest that was told to boot is not looked at again."""
    real = decisions.next_act

    def content(seen: decisions.Observation) -> Act:
        there = seen.destination
        plain = there if there is None else there.model_copy(update={"booting": False})
        return real(seen.model_copy(update={"destination": plain}))

    patch.setattr(switch, "next_act", content)


def broken_mirror_taken_for_ended(patch: Patch) -> None:
    """A disk that was not copied to its end goes with the shard."""
    real = node.SimNode.source_status

    def hopeful(self: node.SimNode) -> Any:
        seen = real(self)
        ended = seen.migration in ("active", "pre-switchover") and not seen.mirror_present
        return seen.model_copy(update={"mirrored": ended, "mirror_present": ended or seen.mirror_present})

    patch.setattr(node.SimNode, "source_status", hopeful)


def disk_that_went_its_own_way(patch: Patch) -> None:
    """The source has run on since its mirror was ended, and the destination boots from what was mirrored."""
    real = decisions.next_act

    def forgetful(seen: decisions.Observation) -> Act:
        act = real(seen)
        ran_on = seen.source is not None and seen.source.migration == "failed"
        return Act.COLD_RESTART if ran_on and act is Act.GIVE_BACK else act

    patch.setattr(switch, "next_act", forgetful)


def runs_on_unasked(patch: Patch) -> None:
    """A guest whose rest could not be sent runs on until the store has given it away for certain."""
    patch.setattr(fences, "must_stop", lambda record, running: running and record.ceded_epoch > 0)


def runs_before_all_has_come(patch: Patch) -> None:
    """The destination runs as soon as it is told, since the source is sending the rest already."""
    patch.setattr(node.SimNode, "_await_memory", lambda *_: None)


def never_compared(patch: Patch) -> None:
    """What is on its way need not be compared."""
    real = node.SimNode.source_status
    patch.setattr(node.SimNode, "source_status", lambda self: real(self).model_copy(update={"exact": True}))


def rest_sent_in_post_copy(patch: Patch) -> None:
    """It is sent before the store has decided, also where that cannot be taken back."""
    real = node.SimNode._hand_over
    patch.setattr(node.SimNode, "_hand_over", lambda self, here, **_: real(self, here, send_rest=True))


def export_left_open(patch: Patch) -> None:
    """Post-copy lets the guest run while its source's mirror may still write to its disk."""
    patch.setattr(switch.Switch, "_claim", lambda _: None)


def source_killed_while_memory_follows(patch: Patch) -> None:
    """A destination that runs is taken for one that needs nobody any more."""
    real = decisions.next_act

    def hasty(seen: decisions.Observation) -> Act:
        act = real(seen)
        return Act.DONE if act is Act.AWAIT_MEMORY else act

    patch.setattr(switch, "next_act", hasty)


def lost_memory_is_waited_for(patch: Patch) -> None:
    """The source has died in post-copy, and the guest that waits for its pages is left to wait."""
    real = decisions.next_act

    def patient(seen: decisions.Observation) -> Act:
        act = real(seen)
        receiving = seen.destination is not None and seen.destination.receiving
        return Act.LOOK_AGAIN if receiving and act is Act.COLD_RESTART else act

    patch.setattr(switch, "next_act", patient)


def stall_taken_for_death(patch: Patch) -> None:
    """A destination whose QEMU does not answer is taken for dead."""
    real = node.SimNode.destination_status

    def hasty(self: node.SimNode) -> DestinationStatus:
        seen = real(self)
        return seen.model_copy(update={"present": False, "silent": False}) if seen.silent else seen

    patch.setattr(node.SimNode, "destination_status", hasty)


def stalled_source_taken_for_dead(patch: Patch) -> None:
    real = node.SimNode.source_status

    def hasty(self: node.SimNode) -> Any:
        if self.guest is not None and self._is_silent(self.guest):
            raise NotFound("the guest is gone")
        return real(self)

    patch.setattr(node.SimNode, "source_status", hasty)


def stuck_monitor_waited_for(patch: Patch) -> None:
    """It waits for a page that never comes, as its guest does."""
    patch.setattr(decisions, "_silent_too_long", lambda *_: Act.LOOK_AGAIN)


@pytest.mark.parametrize(
    "mistake",
    [
        stuck_monitor_waited_for,
        stall_taken_for_death,
        stalled_source_taken_for_dead,
        disk_that_went_its_own_way,
        runs_on_unasked,
        runs_before_all_has_come,
        never_compared,
        rest_sent_in_post_copy,
        export_left_open,
        source_killed_while_memory_follows,
        lost_memory_is_waited_for,
        no_compare,
        source_resumed_after_commit,
        no_epochs,
        not_asking,
        answering_without_deciding,
        no_watchdog,
        no_sweep,
        given_back_on_silence,
        no_bound,
        rollback_undecided,
        aborts_without_looking,
        no_cold_restart,
        begun_boot_taken_for_done,
        broken_mirror_taken_for_ended,
    ],
)
def test_the_simulator_catches(mistake: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mistake(monkeypatch)
    for seed in range(SEEDS_TO_BE_CAUGHT):
        try:
            simulate(seed)
        except LawBroken:
            return
    raise AssertionError(f"{mistake.__name__} breaks no law in {SEEDS_TO_BE_CAUGHT} seeds")
