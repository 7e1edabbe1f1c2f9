"""Runs a Python policy pack for an engine, and ends with it: an engine that is killed leaves its analyzers behind.

    python -m stacks.policy_analyzer ENGINE_ADDRESS PROGRAM …

Everything else is ``pulumi.policy``, which Pulumi's Python SDK has for this.
"""

import os
import runpy

from providers.plugin.parent import when_parent_ends

if __name__ == "__main__":
    when_parent_ends(lambda: os._exit(0))
    runpy.run_module("pulumi.policy", run_name="__main__", alter_sys=True)
