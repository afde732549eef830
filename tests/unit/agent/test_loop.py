"""The agent ends when it is told to, whatever it was doing just then."""

import signal
import subprocess
import sys

IN_A_FINALISER = """
import os, signal
from ramshelf.agent.loop import Agent
from ramshelf.core.config import Config

class Odd:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

agent = Agent(lambda: (Config(), "test:///default"))
signal.signal(signal.SIGTERM, agent._stop)
odd = Odd()
del odd
print("goes on", flush=True)
agent._wait()
"""


def test_a_signal_whose_exception_python_drops_ends_it_at_the_next_wait() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_FINALISER],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout == "goes on\n"
    assert "_Stop" in ended.stderr.splitlines()[-1]
    assert ended.returncode not in {0, -signal.SIGTERM}
