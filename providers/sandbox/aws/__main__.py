"""``python -m providers.sandbox.aws``: prints ``ready PORT`` once it serves, ends on SIGTERM."""

import os
import sys
from collections.abc import Sequence

from engine.clock import SystemClock
from providers.sandbox.cloud import parse_options, serve


def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(
        "providers.sandbox.aws", account="123456789012", regions=("us-east-1", "eu-west-1"), argv=argv
    )
    os.environ["MOTO_ACCOUNT_ID"] = options.account
    # moto reads its account from the environment once, when it is imported.
    from providers.sandbox.aws.catalogue import LIST_PRICE_OF_LARGE
    from providers.sandbox.aws.cloud import Cloud, forget_other_regions
    from providers.sandbox.aws.front import build_app

    unknown = [region for region in options.regions if region not in LIST_PRICE_OF_LARGE]
    if unknown:
        print(f"no prices for {', '.join(unknown)}; known: {', '.join(LIST_PRICE_OF_LARGE)}", file=sys.stderr)
        return 2
    forget_other_regions(options.regions)
    cloud = Cloud(
        account=options.account,
        regions=options.regions,
        seed=options.seed,
        meter_speed=options.meter_speed,
        clock=SystemClock(),
    )
    serve(build_app(cloud), options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
