"""The kernel's log (/dev/kmsg), read as it grows."""

import errno
import os
import time
from collections.abc import Iterator
from itertools import islice

from ramshelf.core.store.write_errors import Message, parse_message

_PATH = "/dev/kmsg"

_DEVICE = os.makedev(1, 11)
"""The number of the device (Documentation/admin-guide/devices.txt)."""

_LARGEST = 8192
"""The most bytes of a record (PRINTK_MESSAGE_MAX; CONSOLE_EXT_LOG_MAX before Linux 6.3)."""

_MOST = 200_000
"""The most records that are read at a time.

Whoever makes the kernel log without end keeps nobody here for ever.
"""


class KernelLog:
    """A reader of the log, from the oldest message that it still holds.

    It wakes nobody, and takes nothing away. Raises OSError where this process may not read the log:
    kernel.dmesg_restrict wants CAP_SYSLOG. Containers often have no such device, or something else
    in its place.
    """

    def __init__(self) -> None:
        if os.stat(_PATH).st_rdev != _DEVICE:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), _PATH)
        self.cut = True
        """Whether messages were overwritten before they were read.

        Whoever takes note of it may set it to False.
        """
        self._descriptor = os.open(_PATH, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the log."""
        os.close(self._descriptor)

    def messages(self, word: str) -> Iterator[Message]:
        """Yield the kernel's own messages with this word that are new, the oldest first."""
        # The log's clock stands still while the host is suspended; the clock of a guest's note does
        # not.
        suspended = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(
            time.CLOCK_MONOTONIC
        )
        wanted = word.encode()
        for record in islice(self._records(), _MOST):
            message = parse_message(record) if wanted in record else None
            if message is not None:
                yield Message(at=message.at + suspended, text=message.text)

    def _records(self) -> Iterator[bytes]:
        while True:
            try:
                yield os.read(self._descriptor, _LARGEST)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                self.cut = True
                yield b""  # what was next has been overwritten; the oldest that is there follows
