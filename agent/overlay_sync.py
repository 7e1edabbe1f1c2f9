"""Keeps this host's part of the overlay at the control plane's newest view: asks, waits for a newer one, applies it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from agent.overlay import Overlay
from agent.overlay_wire import OverlayRequest, OverlayView
from engine.errors import AuthenticationFailed, ConfigurationError, ShardwrightError

_FIRST_PAUSE, _LONGEST_PAUSE, _REFUSED_PAUSE = 0.2, 10.0, 60.0
"""Refused is a node that the store has given up: it will hardly be taken back."""
_LOG = logging.getLogger("agent.overlay")
Ask = Callable[[OverlayRequest], Awaitable[OverlayView]]
"""The answer comes with the next change, or with what is known already after a while. Raises ShardwrightError."""


class OverlaySync:
    """``endpoint``: where peers reach this host's tunnel, ADDRESS:PORT."""

    def __init__(self, overlay: Overlay, endpoint: str, ask: Ask) -> None:
        self._overlay, self._endpoint, self._ask = overlay, endpoint, ask
        self._applied = 0
        self.ready = asyncio.Event()
        """Set once a view has been applied."""

    async def run(self) -> None:
        """Until cancelled. What cannot be had or done now is tried again."""
        pause, last_problem = _FIRST_PAUSE, ""
        while True:
            try:
                await self.follow()
                pause, last_problem = _FIRST_PAUSE, ""
            except ShardwrightError as problem:
                if str(problem) != last_problem:
                    _LOG.warning("the overlay stays as it is: %s", problem)
                last_problem = str(problem)
                await asyncio.sleep(_REFUSED_PAUSE if isinstance(problem, AuthenticationFailed) else pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def follow(self) -> None:
        """One question and its answer. An agent that has just started asks for the whole, whatever it remembers."""
        view = await self._ask(self._request())
        await asyncio.to_thread(self._overlay.apply, view)
        self._applied = view.generation
        self.ready.set()

    def _request(self) -> OverlayRequest:
        try:
            return OverlayRequest(
                public_key=self._overlay.public_key, endpoint=self._endpoint, generation=self._applied
            )
        except ValidationError as problem:
            raise ConfigurationError(
                f"no other node could reach the tunnel at {self._endpoint}",
                why="; ".join(one["msg"] for one in problem.errors()),
                next_step="mend SHARDWRIGHT_OVERLAY_ENDPOINT, or SHARDWRIGHT_UNDERLAY_ADDRESS",
            ) from None
