"""Cell updates as a round needs them: judged first, recovered where an earlier one was interrupted, then run."""

from collections.abc import Callable, Mapping
from typing import Protocol

from engine.errors import PolicyViolation, ProviderError
from engine.model.ids import NodeId
from engine.model.placement import Cell
from engine.model.plan import Plan
from engine.reconcile import CellFailure, CellResult, OnCellEvent, preview, reconcile
from providers.base import Provider, SupportsInventory
from stacks.base import CellDriver, PolicyFinding


class RecoveringDriver(CellDriver, Protocol):
    """A driver that can also put right what a crash left half-way."""

    def needs_recovery(self, cell: Cell) -> bool: ...

    def recover(self, cell: Cell, provider: SupportsInventory) -> object: ...


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

    def judge(self, plan: Plan, user_data: Mapping[NodeId, str]) -> tuple[PolicyFinding, ...]:
        """Preview every cell; the advisory findings. Raises PolicyViolation, or what else stopped a preview."""
        self._judging(plan)
        for cell in plan.cells:
            self.recover(cell.cell)
        results = preview(plan, self.driver, user_data, max_workers=self._max_workers)
        failures = [result for result in results if isinstance(result, CellFailure)]
        if any(failure.kind == PolicyViolation.__name__ for failure in failures):
            violations = [failure for failure in failures if failure.kind == PolicyViolation.__name__]
            raise PolicyViolation(
                "; ".join(failure.what for failure in violations),
                why="; ".join(failure.why for failure in violations),
                next_step="change the plan's limits in shardwright.toml, or the policy",
            )
        if failures:
            raise failures[0].error()
        return tuple(
            finding for result in results if not isinstance(result, CellFailure) for finding in result.findings
        )

    def run(self, plan: Plan, user_data: Mapping[NodeId, str]) -> tuple[CellResult, ...]:
        """One attempt per cell, side by side; failures are values."""
        self._judging(plan)
        return reconcile(
            plan,
            self.driver,
            user_data,
            max_workers=self._max_workers,
            on_event=self._on_event,
            recover=self.recover,
        )

    def recover(self, cell: Cell) -> None:
        """After a crash in an update: adopt what was created but not recorded.

        Raises ConcurrentUpdate, ProviderError.
        """
        if not self.driver.needs_recovery(cell):
            return
        provider = self._providers.get(cell.provider)
        if not isinstance(provider, SupportsInventory):
            raise ProviderError(
                f"{cell.id}: its last update was interrupted",
                why=f"provider {cell.provider} cannot list what it runs, so nothing can be adopted",
                next_step="look at the cell by hand: pulumi stack export",
            )
        self.driver.recover(cell, provider)
