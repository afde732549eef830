"""The ``ramshelf`` command, and ``python -m ramshelf``.

Small, so that Ctrl-C while the rest is still being imported is one line too.
"""

import os
import sys


def main() -> None:
    """Run the command line and exit with its status.

    What is written has the modes that are meant, whatever umask this was started with.
    """
    os.umask(0o022)
    try:
        from ramshelf.cli.main import run  # noqa: PLC0415 - see above

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("ramshelf: Interrupted. [cli.interrupted]\n")
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
