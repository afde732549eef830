"""What the agent and its listener say to each other, on a connection of a Unix socket.

The agent lends the socket that listens for scrapes. The listener says ``READY``, and from then on
asks for texts: a byte each, the number of a format. An answer is the text's length in four bytes
and the text; none has no length, where it could not be made.
The loan lasts as long as the connection.

The listener writes as into a file: it may call neither sendto(2), which is behind ``send`` and can
connect a socket too (MSG_FASTOPEN), nor sendmsg(2).
"""

import os
import socket
import struct

READY = b"\xff"

_LENGTH = struct.Struct("!I")


def lend(connection: socket.socket, listener: socket.socket) -> None:
    """Hand a listening socket over; whoever lends it keeps it, too."""
    socket.send_fds(connection, [b"\0"], [listener.fileno()])


def borrow(connection: socket.socket) -> socket.socket:
    """Return the listening socket that is handed over.

    Raises OSError for the end of the connection, and for all that is no such socket.
    """
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if not descriptors:
        raise ConnectionError("no socket was handed over")
    lent = socket.socket(fileno=descriptors[0])
    if not lent.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        lent.close()
        raise ConnectionError("what was handed over does not listen")
    return lent


def accept(connection: socket.socket) -> None:
    """Say that the socket that was lent is served from now on."""
    os.write(connection.fileno(), READY)


def ask(connection: socket.socket, number: int) -> bytes:
    """Return the text in the format of this number. Raises OSError where none comes."""
    os.write(connection.fileno(), bytes((number,)))
    (length,) = _LENGTH.unpack(_received(connection, _LENGTH.size))
    return _received(connection, length)


def reply(connection: socket.socket, text: bytes) -> None:
    """Send the text that was asked for."""
    connection.sendall(_LENGTH.pack(len(text)) + text)


def _received(connection: socket.socket, length: int) -> bytes:
    chunks = []
    while length:
        chunk = connection.recv(min(length, 1 << 20))
        if not chunk:
            raise ConnectionError("the connection has ended")
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)
