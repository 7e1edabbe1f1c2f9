"""A policy with a stop watch: how long it took to get ready, and for each answer."""

from time import perf_counter

from lab.host import Policy
from lab.wire import Init, Missed, Observe, Order


class TimedPolicy:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.init_seconds = 0.0
        self.answer_seconds: list[float] = []

    def start(self, init: Init) -> Missed | None:
        began = perf_counter()
        missed = self._policy.start(init)
        self.init_seconds = perf_counter() - began
        return missed

    def answer(self, observe: Observe) -> Order | Missed:
        began = perf_counter()
        order = self._policy.answer(observe)
        self.answer_seconds.append(perf_counter() - began)
        return order
