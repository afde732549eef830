"""RabbitMQ, through which the services of two hosts speak to each other."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from support.devices import scratch
from support.process import HANG, wait_until

_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_PORT = 5672


@contextmanager
def rabbitmq(address: str) -> Iterator[str]:
    """Run a broker for whoever reaches this host at ``address``, and yield its transport_url.

    Erlang's epmd, which comes with it, ends with ``scripts/isolated``.
    """
    directory = scratch() / "rabbitmq"
    directory.mkdir()
    (directory / "rabbitmq.conf").write_text(
        f"listeners.tcp.default = {_PORT}\nloopback_users = none\n"
    )
    environment = {
        **os.environ,
        "HOME": str(directory),  # Erlang keeps its cookie there.
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_MNESIA_BASE": str(directory),
        "RABBITMQ_NODENAME": "rabbit@localhost",
        "RABBITMQ_PID_FILE": str(directory / "pid"),
    }
    log = directory / "output"
    with log.open("wb") as output:
        broker = subprocess.Popen(
            [_SERVER], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    try:
        wait_until(
            lambda: broker.poll() is not None or "completed with" in log.read_text(),
            "RabbitMQ is up",
        )
        assert broker.poll() is None, log.read_text()
        yield f"rabbit://guest:guest@{address}:{_PORT}/"
    finally:
        broker.terminate()
        broker.wait(timeout=HANG)
        shutil.rmtree(directory)
