"""Programs that Pulumi's engine starts by name: the policy analyzer for Python packs, and the shardnet plugin.

The engine finds them beside itself or on PATH. They run with SHARDWRIGHT_PYTHON, which the driver sets to the
interpreter that it runs on itself.
"""

import os
from pathlib import Path

POLICY_ANALYZER = "pulumi-analyzer-policy-python"
_TEXTS = {
    POLICY_ANALYZER: """#!/bin/sh
# Runs Python policy packs for an engine without the Python language plugin.
exec "${SHARDWRIGHT_PYTHON:-python3}" -u -m stacks.policy_analyzer "$@"
""",
    "pulumi-resource-shardnet": """#!/bin/sh
# The Pulumi provider of networks that speak the Open Capacity API.
exec "${SHARDWRIGHT_PYTHON:-python3}" -u -m providers.network.plugin --with-parent "$@"
""",
}


def put_launchers(folder: Path) -> None:
    """Idempotent, and safe while other processes do the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _TEXTS.items():
        target = folder / name
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        draft = folder / f".{name}.{os.getpid()}"
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o755)
        draft.replace(target)


def missing_launchers(folder: Path) -> tuple[str, ...]:
    return tuple(name for name in _TEXTS if not (folder / name).exists())
