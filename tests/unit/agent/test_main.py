import subprocess
import sys

STUCK = """
import asyncio, logging, sys, threading
from agent import __main__ as agent

async def serve(config, *, stop_guests_on_exit):
    begun = threading.Event()
    stuck = asyncio.get_running_loop().run_in_executor(None, lambda: (begun.set(), threading.Event().wait(600)))
    await asyncio.to_thread(begun.wait)
    logging.getLogger("agent").warning("has ended")

agent.serve, agent.load = serve, lambda path: None
agent.main(["--config", "none"])
"""


def test_an_agent_that_has_ended_waits_for_no_thread_of_its_own() -> None:
    """One may ask for a name that nobody resolves."""
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=True)
    assert "has ended" in done.stderr
