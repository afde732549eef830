"""The ``ramshelf`` command, and ``python -m ramshelf``.

This module is small, so that Ctrl-C gives a single line even while the rest is being imported.
"""

import os
import sys


def main() -> None:
    """Run the command line and exit with its status.

    The umask is set first, so that files get the intended modes whatever umask this was started
    with.
    """
    os.umask(0o022)
    try:
        from ramshelf.cli.main import run  # noqa: PLC0415 - see above

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("ramshelf: Interrupted. [cli.interrupted]\n")
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
