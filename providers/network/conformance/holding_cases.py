"""Two-phase holds, and the reservations that come of them."""

import httpx

from providers.network import wire
from providers.network.conformance.base import Cases, NotOffered, require
from providers.network.conformance.probe import Probe, new_key, told
from providers.network.wire import HoldState, ProblemCode, ReservationState

case = Cases()


@case("idempotent hold", "the same key with the same request is the same hold, and takes the units once")
def idempotent_hold(probe: Probe) -> str:
    quote, key = probe.firm(), new_key()
    body = {"quote_id": quote.quote_id, "quantity": 1}
    first = probe.keep(probe.read(probe.post("/v1/holds", body, key=key), wire.WireHold))
    free = probe.free(quote.offer_id)
    again = probe.keep(probe.read(probe.post("/v1/holds", body, key=key), wire.WireHold))
    require(again.hold_id == first.hold_id, "a second hold")
    require(probe.free(quote.offer_id) == free, "the units were taken twice")
    return "one hold"


@case("key used for something else", "422 key_reused")
def key_reused(probe: Probe) -> str:
    quote, key = probe.firm(2), new_key()
    first = probe.post("/v1/holds", {"quote_id": quote.quote_id, "quantity": 1}, key=key)
    probe.keep(probe.read(first, wire.WireHold))
    other = probe.post("/v1/holds", {"quote_id": quote.quote_id, "quantity": 2}, key=key)
    return probe.problem(other, 422, ProblemCode.KEY_REUSED)


@case("hold expiry", "an unpaid hold lapses at expires_at, cannot be confirmed (410), and its units are free again")
def hold_expiry(probe: Probe) -> str:
    hold = probe.hold(lasts_seconds=1)
    probe.wait((hold.expires_at - probe.clock.now()).total_seconds() + 0.5)
    now = probe.read(probe.get(f"/v1/holds/{hold.hold_id}"), wire.WireHold)
    require(now.state is HoldState.LAPSED, f"it is {now.state.value}")
    body = {"node": "check-late", "token": "check:late", "user_data": ""}
    answer = probe.post(f"/v1/holds/{hold.hold_id}/confirm", body, key=new_key())
    return f"lapsed, {probe.problem(answer, 410, ProblemCode.HOLD_LAPSED)}"


@case("paid hold", "a paid hold does not lapse; paying twice is paying once")
def paid_hold(probe: Probe) -> str:
    hold = probe.hold(lasts_seconds=1)
    path = f"/v1/holds/{hold.hold_id}/pay"
    first = probe.read(probe.post(path, key=new_key()), wire.WireHold)
    probe.wait((hold.expires_at - probe.clock.now()).total_seconds() + 0.5)
    second = probe.read(probe.post(path, key=new_key()), wire.WireHold)
    require(first.state is HoldState.PAID, f"it is {first.state.value}")
    require(second.state is HoldState.PAID, f"it is {second.state.value} after its time")
    require(first.paid_at == second.paid_at, "it was paid a second time")
    return "paid once, still there"


@case("release twice", "204 both times, and the units are free again")
def release_twice(probe: Probe) -> str:
    hold = probe.hold()
    path = f"/v1/holds/{hold.hold_id}"
    answers = [probe.delete(path), probe.delete(path)]
    for answer in answers:
        require(answer.status_code == httpx.codes.NO_CONTENT, told(answer))
    state = probe.read(probe.get(path), wire.WireHold).state
    require(state is HoldState.RELEASED, f"it is {state.value}")
    return "204, 204, released"


@case("double confirm", "the same node and token is the same reservation, under another key too; one instance runs")
def double_confirm(probe: Probe) -> str:
    hold = probe.hold(2)
    unit = probe.start(hold)
    again = probe.start(hold, node=unit.node, token=unit.token, user_data="another attempt")
    require(again.reservation_id == unit.reservation_id, "a second reservation")
    running = probe.read(probe.get("/v1/instances"), wire.InstanceList).instances
    count = sum(one.node == unit.node for one in running)
    require(count == 1, f"{count} instances of the node")
    started = probe.read(probe.get(f"/v1/holds/{hold.hold_id}"), wire.WireHold).started
    require(started == 1, f"{started} units started")
    return "one reservation, one instance"


@case("node of another token", "409 node_taken")
def node_taken(probe: Probe) -> str:
    hold = probe.hold(2)
    unit = probe.start(hold)
    body = {"node": unit.node, "token": "check:somebody-else", "user_data": ""}
    answer = probe.post(f"/v1/holds/{hold.hold_id}/confirm", body, key=new_key())
    return probe.problem(answer, 409, ProblemCode.NODE_TAKEN)


@case("confirm after release", "410 hold_lapsed")
def confirm_after_release(probe: Probe) -> str:
    hold = probe.hold()
    probe.delete(f"/v1/holds/{hold.hold_id}")
    body = {"node": "check-gone", "token": "check:gone", "user_data": ""}
    answer = probe.post(f"/v1/holds/{hold.hold_id}/confirm", body, key=new_key())
    return probe.problem(answer, 410, ProblemCode.HOLD_LAPSED)


@case("user data", "what a node is started with is never read back")
def user_data(probe: Probe) -> str:
    unit = probe.start(probe.hold(), user_data="#!/bin/sh\n# marker-8675\n")
    for path in (f"/v1/reservations/{unit.reservation_id}", "/v1/reservations", "/v1/instances"):
        require("marker-8675" not in probe.get(path).text, f"it stands in {path}")
    return "not told"


@case("end twice", "204 both times, the reservation is ended and no instance is left")
def end_twice(probe: Probe) -> str:
    unit = probe.start(probe.hold())
    path = f"/v1/reservations/{unit.reservation_id}"
    for answer in (probe.delete(path), probe.delete(path)):
        require(answer.status_code == httpx.codes.NO_CONTENT, told(answer))
    state = probe.read(probe.get(path), wire.WireReservation).state
    require(state is ReservationState.ENDED, f"it is {state.value}")
    running = probe.read(probe.get("/v1/instances"), wire.InstanceList).instances
    require(all(one.node != unit.node for one in running), "its instance still runs")
    return "204, 204, ended"


@case("resize of a hold", "grows within its quote at the same price, shrinks, and never beyond what was quoted")
def resize_hold(probe: Probe) -> str:
    quote = probe.firm(2)
    body = {"quote_id": quote.quote_id, "quantity": 1}
    hold = probe.keep(probe.read(probe.post("/v1/holds", body, key=new_key()), wire.WireHold))
    path = f"/v1/holds/{hold.hold_id}/resize"
    grown = probe.read(probe.post(path, {"quantity": 2}, key=new_key()), wire.WireHold)
    require(
        (grown.quantity, grown.unit_price) == (2, hold.unit_price), f"{grown.quantity} at {grown.unit_price.amount}"
    )
    beyond = probe.post(path, {"quantity": quote.quantity + 1}, key=new_key())
    seen = probe.problem(beyond, 409, ProblemCode.INSUFFICIENT_CAPACITY)
    shrunk = probe.read(probe.post(path, {"quantity": 1}, key=new_key()), wire.WireHold)
    require(shrunk.quantity == 1, f"{shrunk.quantity} units after it shrank")
    return f"1, 2, 1 units; {seen} beyond the quote"


@case("resize of a reservation", "goes on as another type at its posted price, and never above the limit price")
def resize_reservation(probe: Probe) -> str:
    unit = probe.start(probe.hold())
    others = [
        one
        for one in probe.offers()
        if one.auction_id is None and one.zone == unit.zone and one.offer_id != unit.offer_id and one.available != 0
    ]
    if not others:
        raise NotOffered("no other type at a posted price in that zone")
    other = min(others, key=lambda one: one.price.amount)
    path = f"/v1/reservations/{unit.reservation_id}/resize"
    too_little = {"offer_id": other.offer_id, "limit_price": probe.money(other.price.amount / 2)}
    seen = probe.problem(probe.post(path, too_little, key=new_key()), 409, ProblemCode.PRICE_ABOVE_LIMIT)
    enough = {"offer_id": other.offer_id, "limit_price": probe.money(other.price.amount * 2)}
    resized = probe.read(probe.post(path, enough, key=new_key()), wire.WireReservation)
    require(resized.reservation_id == unit.reservation_id, "another reservation")
    require(resized.instance_type == other.instance_type, f"it is a {resized.instance_type}")
    require(resized.unit_price.amount <= other.price.amount * 2, f"charged at {resized.unit_price.amount}")
    return f"{unit.instance_type} became {resized.instance_type}; {seen} below its price"
