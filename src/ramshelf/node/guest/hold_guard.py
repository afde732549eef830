"""The guard of a guest that is paused for moments.

``python -m ramshelf.node.guest.hold_guard URI NAME`` (node/guard.py) comes next where the process
that holds the guest is killed. It costs little as long as it waits.
"""

import sys

from ramshelf.node.guard import listen


def main(uri: str, name: str) -> None:
    """Resume the guest in the end, if that is still to be done."""
    listen()
    from ramshelf.system.heldnotes import pending  # noqa: PLC0415 - it mostly ends here

    if pending(name):
        from ramshelf.node.guest.let_go import (  # noqa: PLC0415 - libvirt, hardly ever needed
            until_resumed,
        )

        until_resumed(uri, name)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
