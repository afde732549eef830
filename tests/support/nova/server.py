"""The HTTP server of Nova's process: several WSGI applications at one port.

Import this once Nova has chosen its threads: if they are eventlet's, so are the threads in here.
"""

import threading
from collections.abc import Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.util import shift_path_info


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing: the services log what they are asked."""


def serve(port: int, applications: Mapping[str, Any]) -> None:
    """Serve each application below the part of the path that is its name, and return at once."""

    def application(environ: dict[str, Any], respond: Any) -> Any:
        return applications[shift_path_info(environ) or ""](environ, respond)

    server = make_server("", port, application, _Server, _Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
