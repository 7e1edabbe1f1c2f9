"""The OpenAPI 3.1 description of the Open Capacity API: generated from the reference server, frozen in openapi.json.

``python -m providers.network.description`` writes the frozen file anew after a change of the API.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FROZEN = Path(__file__).with_name("openapi.json")


def frozen() -> dict[str, Any]:
    """As it is shipped: what a network implements, and what the conformance suite tests against."""
    described: dict[str, Any] = json.loads(FROZEN.read_text(encoding="utf-8"))
    return described


def generated() -> dict[str, Any]:
    """From the reference server as it is now."""
    from engine.clock import ManualClock
    from providers.network.book import Terms
    from providers.network.exchange import Exchange
    from providers.network.server import create_app

    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    return create_app(Exchange((), Terms("reference"), clock=clock), tenants={}, clock=clock).openapi()


def main() -> None:
    FROZEN.write_text(json.dumps(generated(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
