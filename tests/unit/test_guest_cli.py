"""What `guest list` may import: it is called often, and has 0.25 s of CPU time at most."""

import subprocess
import sys


def test_listing_guests_imports_nothing_slow() -> None:
    program = (
        "import sys, ramshelf.cli.main, ramshelf.cli.guest, ramshelf.cli.capacity; "
        "print(*sorted({'lxml', 'oslo_config', 'rich', 'ramshelf.core.backing'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "\n"
