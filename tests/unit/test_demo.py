"""The demo runs where only what ramshelf itself needs is installed."""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

PROGRAM = """
import sys
sys.modules["pytest"] = None
sys.path[:0] = sys.argv[1:]
import demo
"""


def test_what_the_demo_takes_from_the_tests_needs_no_pytest() -> None:
    places = (str(CHECKOUT / "tests"), str(CHECKOUT / "scripts"))
    subprocess.run((sys.executable, "-c", PROGRAM, *places), check=True, timeout=60)
