"""Cell updates as a round needs them: judged first, recovered where an earlier one was interrupted, then run."""

from collections.abc import Callable, Mapping
from typing import Protocol

from engine.errors import PROVIDER_PROBLEMS, ConcurrentUpdate, PolicyViolation, ProviderError, ShardwrightError
from engine.model.ids import NodeId
from engine.model.placement import Cell
from engine.model.plan import Plan
from engine.model.value import Value
from engine.reconcile import CellFailure, CellResult, OnCellEvent, preview, reconcile
from providers.base import Provider, SupportsInventory
from stacks.base import CellDriver, PolicyFinding

_PASSING = (*PROVIDER_PROBLEMS, ConcurrentUpdate)
"""What stops nobody else: it is one provider's, or over once another update has ended."""


class RecoveringDriver(CellDriver, Protocol):
    """A driver that can also put right what a crash left half-way, and say what an update that failed has made."""

    def made(self, cell: Cell) -> tuple[tuple[NodeId, str], ...]:
        """(node, the provider's instance id)"""
        ...

    def needs_recovery(self, cell: Cell) -> bool: ...

    def recover(self, cell: Cell, provider: SupportsInventory) -> object: ...


class Judgement(Value):
    """What the policy pack thinks of a plan."""

    findings: tuple[PolicyFinding, ...]
    """Advisory ones; a mandatory one is raised."""
    unseen: tuple[CellFailure, ...] = ()
    """Cells that could not be previewed because their provider failed or another update still holds them, and in which
    nothing is bought: they are left as they are. (The pack judges their update again, should it come to one.)"""


class CellUpdates:
    """``judging`` is told which plan the policy pack is about to see, since its shares are those of the whole plan."""

    def __init__(
        self,
        driver: RecoveringDriver,
        providers: Mapping[str, Provider],
        *,
        max_workers: int,
        judging: Callable[[Plan], None] = lambda _: None,
        on_event: OnCellEvent = lambda _: None,
    ) -> None:
        self.driver, self._providers = driver, providers
        self._max_workers, self._judging, self._on_event = max_workers, judging, on_event

    def judge(self, plan: Plan, user_data: Mapping[NodeId, str]) -> Judgement:
        """Preview every cell. Raises PolicyViolation, or what else stopped the preview of a cell that buys."""
        self._judging(plan)
        results = preview(plan, self.driver, user_data, max_workers=self._max_workers, recover=self.recover)
        failures = [result for result in results if isinstance(result, CellFailure)]
        violations = [failure for failure in failures if isinstance(failure.error(), PolicyViolation)]
        if violations:
            raise PolicyViolation(
                f"the policy pack refuses the update of {', '.join(failure.cell.id for failure in violations)}",
                why="; ".join(failure.why for failure in violations),
                next_step="change [policy] in shardwright.toml, then shardwright run --rounds 1; nothing was bought",
            )
        buying = {cell.cell.id for cell in plan.cells if any(node.quote is not None for node in cell.nodes)}
        for failure in failures:
            if failure.cell.id in buying or not isinstance(failure.error(), _PASSING):
                raise failure.error()
        findings = (found for result in results if not isinstance(result, CellFailure) for found in result.findings)
        return Judgement(findings=tuple(findings), unseen=tuple(failures))

    def run(self, plan: Plan, user_data: Mapping[NodeId, str]) -> tuple[CellResult, ...]:
        """One attempt per cell, side by side; failures are values, and name what is there nevertheless."""
        self._judging(plan)
        results = reconcile(
            plan,
            self.driver,
            user_data,
            max_workers=self._max_workers,
            on_event=self._on_event,
            recover=self.recover,
        )
        return tuple(self._with_made(one) if isinstance(one, CellFailure) else one for one in results)

    def _with_made(self, failure: CellFailure) -> CellFailure:
        """One node that cannot be had does not strand its siblings, which run and are paid for."""
        try:
            return failure.model_copy(update={"nodes": self.driver.made(failure.cell)})
        except ShardwrightError:
            return failure  # the state cannot be read just now; a later round asks again

    def recover(self, cell: Cell) -> None:
        """After a crash in an update: adopt what was created but not recorded.

        Raises ConcurrentUpdate, ProviderError, AuthenticationFailed.
        """
        if not self.driver.needs_recovery(cell):
            return
        provider = self._providers.get(cell.provider)
        if not isinstance(provider, SupportsInventory):
            raise ProviderError(
                f"{cell.id}: its last update was interrupted",
                why=f"provider {cell.provider} cannot list what it runs, so nothing can be adopted",
                next_step="look at the cell by hand: pulumi stack export (docs/how-to/policy.md has its variables)",
            )
        self.driver.recover(cell, provider)
