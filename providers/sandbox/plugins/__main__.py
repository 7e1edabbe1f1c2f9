"""``python -m providers.sandbox.plugins aws|gcp|azure-native [--port N]``: prints the port it serves on."""

import argparse
from importlib import import_module

from providers.plugin.server import TablePlugin, serve_plugin

_MODULES = {
    "aws": "providers.sandbox.plugins.aws",
    "gcp": "providers.sandbox.plugins.gcp",
    "azure-native": "providers.sandbox.plugins.azure",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m providers.sandbox.plugins")
    parser.add_argument("plugin", choices=sorted(_MODULES))
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    given = parser.parse_args()
    module = import_module(_MODULES[given.plugin])
    serve_plugin(TablePlugin(module.connect, module.KINDS, module.INVOKES), version="0.1.0", port=given.port)


if __name__ == "__main__":
    main()
