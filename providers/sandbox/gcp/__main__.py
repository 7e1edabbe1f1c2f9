"""``python -m providers.sandbox.gcp``: Google Cloud on one machine, for the sandbox and for tests."""

import os
import sys

from engine.clock import SystemClock
from providers.sandbox.cloud import parse_options, serve
from providers.sandbox.gcp.catalog import ZONES
from providers.sandbox.gcp.server import build_app


def main(argv: list[str] | None = None) -> int:
    options = parse_options("providers.sandbox.gcp", account="shardwright-sandbox", regions=tuple(ZONES), argv=argv)
    unknown = [region for region in options.regions if region not in ZONES]
    if unknown:
        print(f"unknown regions: {', '.join(unknown)}; known: {', '.join(ZONES)}", file=sys.stderr)
        return 2
    secret = os.environ.get("SHARDWRIGHT_SANDBOX_SECRET") or "sandbox"
    serve(build_app(options, clock=SystemClock(), secret=secret), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
