"""``python -m providers.sandbox.azure``: Azure on one machine, for the sandbox and for tests."""

import os
import sys

from engine.clock import SystemClock
from providers.sandbox.azure.catalog import REGIONS
from providers.sandbox.azure.server import build_app
from providers.sandbox.cloud import parse_options, serve

SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"


def main(argv: list[str] | None = None) -> int:
    options = parse_options("providers.sandbox.azure", account=SUBSCRIPTION, regions=tuple(REGIONS), argv=argv)
    unknown = [region for region in options.regions if region not in REGIONS]
    if unknown:
        print(f"unknown regions: {', '.join(unknown)}; known: {', '.join(REGIONS)}", file=sys.stderr)
        return 2
    secret = os.environ.get("SHARDWRIGHT_SANDBOX_SECRET") or "sandbox"
    serve(build_app(options, clock=SystemClock(), secret=secret), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
