"""Watching whether the kernel has failed to write guests' memory to the store."""

import os

from ramshelf.core.host import Unknown
from ramshelf.core.record import replace
from ramshelf.core.store.find import Store
from ramshelf.core.store.write_errors import WriteErrors, with_messages
from ramshelf.system.devicefacts import block_name
from ramshelf.system.hostfacts import known
from ramshelf.system.kernellog import KernelLog


class WriteWatch:
    """Reads what is new in the kernel's log, and remembers what the log has forgotten since."""

    def __init__(self) -> None:
        self._device: str | None = None
        self._log: KernelLog | None = None
        self._seen = WriteErrors()

    def look(self, store: Store) -> WriteErrors | Unknown | None:
        """Return what is known now; None for a tmpfs, which is not written anywhere in this way."""
        if store.kind.tmpfs:
            return None
        return known(self._look, block_name(os.makedev(*store.mount.device)))

    def _look(self, device: str) -> WriteErrors:
        if device != self._device:  # another store: its past is not read yet
            self.close()
        if self._log is None:
            self._log, self._device = KernelLog(), device
        messages = list(self._log.messages(device))
        before = replace(self._seen, cut=self._seen.cut or self._log.cut)
        self._log.cut = False
        self._seen = with_messages(before, messages, device)
        return self._seen

    def close(self) -> None:
        """Close the log, and forget what was seen."""
        if self._log is not None:
            self._log.close()
        self._log, self._device, self._seen = None, None, WriteErrors()
