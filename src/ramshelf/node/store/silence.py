"""Whether the store answers at all.

Whoever looks at a store whose device hangs waits until that is back. So does libvirt when any guest
ends, the one included that only shows whether the hook is called.
"""

import os

from ramshelf.core.host import Unknown
from ramshelf.core.store.find import Store
from ramshelf.node.store.clean import list_directories
from ramshelf.system.backingstore import observe_store, places
from ramshelf.system.worker import Patience, comes_back


def silence(path: str, patience: Patience) -> Unknown | None:
    """Return why the store is not to be looked at, None where it answers.

    ``path`` is libvirt's memory backing directory. Only a process without other threads may call
    this.
    """
    with patience.waiting() as seconds:
        answers = comes_back(lambda: _touch(path), seconds)
    return None if answers else Unknown(f"the store at {path} does not answer")


def _touch(path: str) -> None:
    """Ask of the store's file system what is asked of it afterwards."""
    list_directories()
    store = places(path)[0].store
    if isinstance(store, Store):
        os.listdir(store.mount_point)
        observe_store(store.memory_dir)
