"""``python -m providers.sandbox.plugins aws|gcp|azure-native [--port N]``: prints the port it serves on."""

import argparse
from importlib import import_module
from importlib.metadata import version

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
    # The engine warns unless a plugin is as new as the SDK that the program uses.
    plugin = TablePlugin(module.connect, module.KINDS, module.INVOKES)
    serve_plugin(plugin, version=version(f"pulumi-{given.plugin}"), port=given.port)


if __name__ == "__main__":
    main()
