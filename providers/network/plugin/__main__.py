"""``python -m providers.network.plugin``: serves the shardnet plugin; prints its port, as Pulumi's engine expects."""

import argparse
from importlib.metadata import PackageNotFoundError, version

from providers.network.plugin.reservation import KINDS, connect
from providers.plugin.server import TablePlugin, serve_plugin


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m providers.network.plugin")
    parser.add_argument("engine", nargs="?", help="address of the engine that starts this plugin (not needed)")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--with-parent", action="store_true", help="end as soon as whoever started it is gone")
    given, _ = parser.parse_known_args()
    try:
        release = version("shardwright")
    except PackageNotFoundError:
        release = "0.1.0"
    serve_plugin(TablePlugin(connect, KINDS), version=release, port=given.port, with_parent=given.with_parent)


if __name__ == "__main__":
    main()
