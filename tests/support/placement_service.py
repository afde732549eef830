"""The real Placement as a service of its own: HTTP on loopback, SQLite, no Keystone (noauth2).

Run as a program it serves PORT from DATABASE and appends a line for each request to LOG. If the
file CERTIFICATE is there, it serves HTTPS.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from support.process import run, wait_until

_OPENSTACK = str(Path(sys.executable).parent / "openstack")


class PlacementService:
    """A Placement that a test may kill, stop, empty and start again, always at the same port."""

    def __init__(self, directory: Path) -> None:
        self.database = directory / "service.sqlite"
        self.log = directory / "requests.log"
        self.certificate = directory / "certificate.pem"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start serving, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-m", "support.placement_service"),
                *(str(self.port), str(self.database), str(self.log), str(self.certificate)),
            ],
            stderr=subprocess.DEVNULL,  # It gets tracebacks of failures that tests want.
            cwd=Path(__file__).resolve().parents[1],
        )
        wait_until(self._answers, "Placement answers")

    def trust(self) -> None:
        """Serve HTTPS from the next start on, with a certificate that nobody knows yet."""
        subject = ("-subj", "/CN=placement", "-addext", "subjectAltName=IP:127.0.0.1")
        kind = ("-x509", "-newkey", "rsa:2048", "-noenc", *subject)
        run(
            "openssl",
            "req",
            *kind,
            "-keyout",
            str(self.certificate),
            "-out",
            f"{self.certificate}.public",
        )
        public = Path(f"{self.certificate}.public").read_text()
        self.certificate.write_text(self.certificate.read_text() + public)
        self.url = self.url.replace("http:", "https:")

    def kill(self) -> None:
        """Kill it, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def empty(self) -> None:
        """Start it again with an empty database."""
        self.kill()
        self.database.unlink()
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Make it accept connections and answer none."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Make it answer 500, by taking a table from its database."""
        self._sql("ALTER TABLE allocations RENAME TO gone")
        try:
            yield
        finally:
            self._sql("ALTER TABLE gone RENAME TO allocations")

    @contextmanager
    def contended(self, consumer: str) -> Iterator[None]:
        """Make each change of this consumer's allocations find that somebody else was quicker."""
        self._sql(
            "CREATE TRIGGER contended BEFORE UPDATE OF generation ON consumers "
            f"WHEN OLD.uuid = '{consumer}' BEGIN SELECT RAISE(IGNORE); END"
        )
        try:
            yield
        finally:
            self._sql("DROP TRIGGER contended")

    def requests(self) -> list[str]:
        """Return all requests so far, as ``METHOD PATH STATUS``."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def writes(self) -> list[str]:
        """Return the requests that were to change something."""
        return [request for request in self.requests() if not request.startswith("GET ")]

    def configuration(self, **more: object) -> str:
        """Return a [placement] section for it."""
        settings = {"auth_type": "admin_token", "endpoint": self.url, "token": "admin", **more}
        return "[placement]\n" + "".join(
            f"{key} = {value}\n" for key, value in settings.items() if value
        )

    def openstack(self, *args: str) -> str:
        """Return what the real client says: ``openstack resource provider ...``."""
        access = ("--os-auth-type", "admin_token", "--os-endpoint", self.url, "--os-token", "admin")
        versions = ("--os-placement-api-version", "1.28")
        return run(_OPENSTACK, *access, *versions, *args).stdout

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "Placement does not start"
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0

    def _sql(self, statement: str) -> None:
        import sqlite3  # noqa: PLC0415 - hardly ever needed

        connection = sqlite3.connect(self.database, timeout=60)
        connection.execute(statement)
        connection.commit()
        connection.close()


@contextmanager
def placement_service(directory: Path) -> Iterator[PlacementService]:
    """Yield a running Placement with an empty database; without a token it answers 401."""
    service = PlacementService(directory)
    try:
        service.start()
        yield service
    finally:
        service.kill()


class _Server(WSGIServer):
    """A server of one request at a time, for SQLite has one writer; the others wait in line."""

    request_queue_size = 256


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing: the requests are logged by what they ask for."""


def _logging(app: Any, log: str) -> Callable[..., Iterable[bytes]]:
    def logged(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def respond(status: str, *rest: Any) -> Any:
            query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
            line = (
                f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{query} "
                f"{status.partition(' ')[0]}\n"
            )
            with open(log, "a", encoding="utf-8") as file:
                file.write(line)
            return start_response(status, *rest)

        answer: Iterable[bytes] = app(environ, respond)
        return answer

    return logged


def _serve(port: str, database: str, log: str, certificate: str) -> None:
    from oslo_config import cfg  # noqa: PLC0415 - only in the service
    from placement import conf, db_api, deploy  # noqa: PLC0415

    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options.set_override("connection", f"sqlite:///{database}", group="placement_database")
    options.set_override("sync_on_startup", True, group="placement_database")
    options.set_override("auth_strategy", "noauth2", group="api")
    options([], project="placement", default_config_files=[], default_config_dirs=[])
    db_api.configure(options)
    app = _logging(deploy.loadapp(options), log)
    with make_server(
        "127.0.0.1", int(port), app, server_class=_Server, handler_class=_Quiet
    ) as server:
        if os.path.exists(certificate):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.serve_forever()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
