"""Where the aftercare's process begins: ``PYTHON -I .../hook/carer.py GUEST ID TASK...``.

PYTHON is the installation's, which has libvirt-python. That may be gone meanwhile, as a virtual
environment is after an upgrade; this file lies with the hook's copy and says so.
"""

from __future__ import annotations

import os
import runpy
import sys


def _run() -> None:
    try:
        runpy.run_module("ramshelf.node.guest.aftercare", run_name="__main__")
    except Exception as error:  # noqa: BLE001 - whatever it is, somebody has to hear of it
        for name in [name for name in sys.modules if name.partition(".")[0] == "ramshelf"]:
            del sys.modules[name]
        sys.path.insert(
            0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        )
        from ramshelf.system.hooklog import record  # noqa: PLC0415 - the copy's

        guest, _, *tasks = sys.argv[1:]
        record(
            "no-aftercare",
            guest=guest,
            tasks=tasks,
            reason=f"{sys.executable}: {type(error).__name__}: {error}",
        )


if __name__ == "__main__":
    _run()
