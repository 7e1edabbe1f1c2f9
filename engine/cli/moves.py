"""``shardwright move | drain | moves | cancel``"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.asking import ask
from engine.cli.configure import ConfigFile
from engine.cli.console import Output, changing_line, err, out, print_json, table
from engine.cli.shards import OutputOption
from engine.clock import SystemClock
from engine.errors import ConcurrentUpdate, MoveFailed, UsageError
from engine.model.ids import MoveId, NodeId

if TYPE_CHECKING:
    from engine.app.orders import Watched
    from engine.model.move import MoveReport
    from engine.model.order import Order
    from engine.orders.choice import Choice
    from engine.store.opened import Store

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would move where, why, and the move gate's sum.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Ask for it and return; a control plane takes it up.")]
_LINE_SECONDS = 2.0


def register(app: typer.Typer) -> None:
    app.command("move")(move)
    app.command("drain")(drain)
    app.command("moves")(moves)
    app.command("cancel")(cancel)


def move(
    component: Annotated[str, typer.Argument(help="shard://NAMESPACE/WORKLOAD/COMPONENT[/N]")],
    to: Annotated[str | None, typer.Option("--to", help="A provider or a node; default: wherever is best.")] = None,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    config: ConfigFile = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Move the shard behind a component, live, to another node."""
    from engine.app.orders import new_order
    from engine.model.order import OrderKind
    from engine.namespace.names import parse

    order = new_order(OrderKind.MOVE, SystemClock(), component=parse(component), to=to)
    _carry_out(order, config, output, dry_run=dry_run, wait=not no_wait)


def drain(
    node: Annotated[str, typer.Argument(help="The node to empty.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let the node take shards again.")] = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    config: ConfigFile = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Empty a node: it takes no new shards, its bound ones move live, and the next round gives it back."""
    if undo and dry_run:
        raise UsageError(
            "--undo has no dry run", why="it changes one word in the store", next_step="drop one of the two"
        )
    if undo:
        _undo(NodeId(node), config, output)
        return
    from engine.app.orders import new_order
    from engine.model.order import OrderKind

    order = new_order(OrderKind.DRAIN, SystemClock(), node=NodeId(node))
    _carry_out(order, config, output, dry_run=dry_run, wait=not no_wait)


def moves(
    follow: Annotated[bool, typer.Option("--follow", help="Stay until nothing is under way any more.")] = False,
    last: Annotated[int, typer.Option(min=1, help="how many of those that have ended")] = 20,
    config: ConfigFile = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the moves: those under way, and the history with phases, downtimes and errors."""
    from engine.app.configured import load, open_store
    from engine.app.orders import follow_moves
    from engine.cli.move_tables import ended_table, under_way_table

    with open_store(load(config)) as store:
        if follow:
            _watch(follow_moves(store, SystemClock()))
        under_way, ended = store.moves.under_way(), store.moves.latest(last)
    if output is Output.JSON:
        print_json("moves", {"under_way": [one.model_dump(mode="json") for one in under_way],
                             "ended": [one.model_dump(mode="json") for one in ended]})  # fmt: skip
        return
    if under_way:
        out().print(under_way_table(under_way))
    out().print(ended_table("Moves that have ended", ended))


def cancel(
    move_id: Annotated[str, typer.Argument(metavar="MOVE", help="Its id, as shardwright moves prints it.")],
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for what becomes of it.")] = False,
    config: ConfigFile = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give a move up. Before its commit point the shard stays where it is; after it the move cannot be undone."""
    from engine.app.configured import load, open_store
    from engine.app.orders import cancel as mark
    from engine.app.orders import follow_moves, require_control_plane
    from engine.model.move import UNSETTLED, MovePhase

    with open_store(load(config)) as store:
        mark(store, MoveId(move_id), SystemClock())
        if no_wait:
            err().print(f"{move_id} is marked as not wanted")
            if output is Output.JSON:
                print_json("cancelled", {"move": move_id})
            return
        require_control_plane(store, "shardwright moves", sofar=f"{move_id} is marked as not wanted, for the next one")
        ended = _watch(follow_moves(store, SystemClock(), only=MoveId(move_id)))
    _print_ended(output, f"Cancelling {move_id}", ended)
    report = ended[0]
    if report.phase is MovePhase.ABORTED:
        return
    if report.phase in UNSETTLED:
        raise ConcurrentUpdate(
            f"move {move_id} is not settled yet: {report.phase}",
            why=report.error,
            next_step="shardwright moves --follow",
        )
    raise ConcurrentUpdate(
        f"move {move_id} could not be cancelled: it had passed its commit point",
        why=f"the shard is {report.request.destination}'s since epoch {report.epoch_after}",
        next_step=f"to bring it back: shardwright move COMPONENT --to {report.request.source}",
    )


def _carry_out(order: "Order", config: Path | None, output: Output, *, dry_run: bool, wait: bool) -> None:
    from engine.app.configured import load, open_store
    from engine.app.orders import empty, preview
    from engine.model.order import OrderKind

    configuration = load(config)
    with open_store(configuration) as store:
        choice = preview(configuration, store, order, SystemClock())
        if dry_run:
            _print_choice(order, choice, output)
            return
        if order.kind is OrderKind.MOVE:
            _require_place(order, choice)
        look, give_up = "shardwright moves --follow", "shardwright cancel MOVE"
        ended = ask(store, order, output, _watch, wait=wait, look=look, give_up=give_up)
        if ended is None:
            return
        _print_ended(output, str(order), ended)
        _require_moved(order, store, ended, emptied=order.node is not None and empty(store, order.node))


def _undo(node: NodeId, config: Path | None, output: Output) -> None:
    from engine.app.configured import load, open_store
    from engine.app.orders import undo_drain

    with open_store(load(config)) as store:
        changed = undo_drain(store, node)
        found = store.shard_map.node(node)
    if output is Output.JSON:
        print_json("node", found)
        return
    err().print(f"{node} {'takes shards again' if changed else 'was not drained'}")


def _watch(stages: "Iterable[Watched]") -> "tuple[MoveReport, ...]":
    """Tell on stderr how it goes: one line that changes on a terminal, else a line every two seconds or so."""
    from engine.cli.move_tables import progress_line

    console = err()
    ended: tuple[MoveReport, ...] = ()
    told: dict[MoveId, tuple[str, float]] = {}
    with changing_line(console, "waiting for the control plane") as change:
        for stage in stages:
            ended = stage.ended
            if change is not None:
                change("   ".join(progress_line(one) for one in stage.under_way) or "waiting")
                continue
            for one in stage.under_way:
                progress = one.progress
                phase, at = told.get(progress.request.id, ("", 0.0))
                now = progress.at.timestamp()
                if progress.phase != phase or now - at >= _LINE_SECONDS:
                    told[progress.request.id] = (progress.phase, now)
                    console.print(progress_line(one), soft_wrap=True)
    return ended


def _print_choice(order: "Order", choice: "Choice", output: Output) -> None:
    if output is Output.JSON:
        print_json("move_choice", choice, order=order)
        return
    from engine.cli.move_tables import choice_tables

    for part in choice_tables(order, choice):
        out().print(part)


def _print_ended(output: Output, title: str, ended: "tuple[MoveReport, ...]") -> None:
    from engine.cli.move_tables import ended_table

    if output is Output.JSON:
        print_json("moves", {"under_way": [], "ended": [one.model_dump(mode="json") for one in ended]})
    elif ended:
        out().print(ended_table(title, ended))
    else:
        out().print(table(title, ("",), [("nothing had to move",)]))


def _require_place(order: "Order", choice: "Choice") -> None:
    if choice.stranded:
        raise MoveFailed(
            f"{order.component} finds no place",
            why=choice.stranded[0].why,
            next_step=f"shardwright nodes, then shardwright move {order.component} --to NODE",
        )


def _require_moved(order: "Order", store: "Store", ended: "tuple[MoveReport, ...]", *, emptied: bool) -> None:
    """Raises MoveFailed. A node is drained once it is empty, whoever has emptied it."""
    from engine.model.move import MovePhase

    failed = [report for report in ended if report.phase is not MovePhase.CLEANED]
    stranded = store.orders.get(order.id).stranded
    if emptied or (order.node is None and not (failed or stranded)):
        return
    why = [f"{report.request.shard}: {report.phase}, {report.error}" for report in failed]
    why += [f"{one.shard} finds no place: {one.why}" for one in stranded]
    why = why or ["a replica is still being drained, or was bound meanwhile"]
    what, step = f"{order.component} did not move", "shardwright moves"
    if order.node is not None:
        what = f"{order.node} is not empty yet, and takes no new shards"
        step = f"shardwright run --rounds 1, which buys room, or shardwright drain {order.node} --undo"
    raise MoveFailed(what, why="; ".join(why), next_step=step)
