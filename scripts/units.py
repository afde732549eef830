#!/usr/bin/env python3
"""units.py DIRECTORY: write the agent's units, as a package has them, into DIRECTORY."""

import sys
from pathlib import Path

from ramshelf.core.agent.unit import packaged_units

directory = Path(sys.argv[1])
directory.mkdir(parents=True, exist_ok=True)
for unit in packaged_units():
    (directory / unit.name).write_text(unit.shipped)
