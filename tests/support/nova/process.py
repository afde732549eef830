"""Nova's services in one process, run by Nova's own Python: process.py PORT USER ROLE...

The roles are conductor, scheduler, compute and api. With api come Placement and the stubs, served
at PORT below /compute, /placement, /image and /network. What each is told is in /etc/nova. USER is
the user that the process runs as, once Nova's helper for what needs root (oslo.privsep) is there.
Services without a database of their own (compute alone) ask the conductor. The process says "ready"
and the kind of its threads when all are up. It then answers each line of its input with one, and
ends, as a crash does, when its input ends.

The only such line is ``hammer SERVER SECONDS``, and the answer is what hammer.py reports.
"""

import json
import os
import pwd
import select
import sys
import threading
import traceback
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from support.nova import stubs
from support.nova.conf import API_PASTE, NOVA_CONF

_CELL1 = "00000000-0000-0000-0000-000000000001"


def main(port: str, user: str, *roles: str) -> None:
    """Run these roles until the input ends."""
    # First of all: it chooses the threads that this Nova's services have by default.
    import nova.cmd.compute  # noqa: F401, PLC0415

    from support.nova.server import serve  # noqa: PLC0415 - it uses the threads chosen above

    _serialise_transactions()
    state = _configure(user)
    applications: dict[str, Any] = {}
    if "api" in roles:
        _make_databases()
        applications["image"] = stubs.Images(state / "images")
        applications["network"] = stubs.networks
        applications["placement"] = _placement(state)
        applications["compute"] = stubs.operator(_api())
        serve(int(port), applications)
    if set(roles) == {"compute"}:
        _ask_the_conductor()
    services = {
        role: _start(role) for role in ("conductor", "scheduler", "compute") if role in roles
    }
    if {"api", "compute"} <= set(roles):
        _find_hosts()
    _say(f"ready {_threads()}")
    while select.select([sys.stdin], [], []):  # This lets eventlet's threads run meanwhile.
        match sys.stdin.readline().split():
            case ["hammer", server, seconds]:
                from support.nova.hammer import hammer  # noqa: PLC0415 - it needs Nova

                report = hammer(services["compute"].manager, server, float(seconds))
                _say(json.dumps(asdict(report)))
            case _:
                os._exit(0)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _threads() -> str:
    """Return whose threads Python's are here: the kernel's own, or eventlet's in one of them."""
    kernel: list[int] = []
    thread = threading.Thread(target=lambda: kernel.append(threading.get_native_id()))
    thread.start()
    thread.join()
    return "eventlet" if kernel == [threading.get_native_id()] else "native"


def _serialise_transactions() -> None:
    """Have transactions wait for each other: SQLite fails one that begins to write too late."""
    import sqlalchemy as sa  # noqa: PLC0415

    @sa.event.listens_for(sa.engine.Engine, "connect")
    def connect(connection: Any, _: object) -> None:
        connection.execute("PRAGMA busy_timeout = 60000")
        connection.execute("PRAGMA synchronous = OFF")

    @sa.event.listens_for(sa.engine.Engine, "begin")
    def begin(connection: Any) -> None:
        if "in_transaction" not in connection.info:  # oslo.db looks there too.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.info["in_transaction"] = True


def _configure(user: str) -> Path:
    """Read nova.conf, and become ``user`` before anything is opened or written."""
    from nova.conf import CONF  # noqa: PLC0415
    from nova.config import parse_args  # noqa: PLC0415
    from nova.objects import register_all  # noqa: PLC0415
    from oslo_log import log  # noqa: PLC0415

    parse_args(["nova", "--config-file", str(NOVA_CONF)])
    _become(user)
    log.setup(CONF, "nova")
    register_all()
    return Path(CONF.state_path)


def _become(user: str) -> None:
    """Fork Nova's privileged helper while there is something to inherit, then become ``user``."""
    from nova.privsep import sys_admin_pctxt  # noqa: PLC0415
    from oslo_privsep.priv_context import Method  # noqa: PLC0415

    sys_admin_pctxt.start(Method.FORK)
    account = pwd.getpwnam(user)
    os.initgroups(user, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.environ["HOME"] = account.pw_dir


def _make_databases() -> None:
    """Make the schemas and the two cells that every deployment has, unless the cells are there."""
    from nova.conf import CONF  # noqa: PLC0415
    from nova.context import get_admin_context, target_cell  # noqa: PLC0415
    from nova.db.api import api as api_db  # noqa: PLC0415
    from nova.db.api import models as api_models  # noqa: PLC0415
    from nova.db.main import api as main_db  # noqa: PLC0415
    from nova.db.main import models as main_models  # noqa: PLC0415
    from nova.objects.cell_mapping import CellMapping, CellMappingList  # noqa: PLC0415

    api_models.BASE.metadata.create_all(api_db.get_engine())
    admin = get_admin_context()
    if CellMappingList.get_all(admin):
        return
    cell0 = CONF.database.connection.replace("cell1", "cell0")
    for name, identity, database, transport in (
        ("cell0", CellMapping.CELL0_UUID, cell0, "none:///"),
        ("cell1", _CELL1, CONF.database.connection, CONF.transport_url),
    ):
        cell = CellMapping(
            admin, uuid=identity, name=name, database_connection=database, transport_url=transport
        )
        cell.create()
        with target_cell(admin, cell) as targeted:
            main_models.BASE.metadata.create_all(main_db.get_engine(context=targeted))


def _placement(state: Path) -> Any:
    from oslo_config import cfg  # noqa: PLC0415
    from placement import conf, db_api, deploy  # noqa: PLC0415

    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options.set_override(
        "connection", f"sqlite:///{state}/placement.sqlite", group="placement_database"
    )
    options.set_override("sync_on_startup", True, group="placement_database")
    options.set_override("auth_strategy", "noauth2", group="api")
    options([], project="placement", default_config_files=[], default_config_dirs=[])
    options.set_override("policy_file", str(state / "placement-policy.json"), group="oslo_policy")
    db_api.configure(options)
    return _one_at_a_time(deploy.loadapp(options))


def _one_at_a_time(application: Any) -> Any:
    """Let a request wait for those before it.

    Placement tries a write again, from another connection, when a request beside it was quicker. On
    SQLite that waits for itself.
    """
    lock = threading.Lock()

    def serialised(environ: Any, respond: Any) -> Any:
        with lock:
            return list(application(environ, respond))

    return serialised


def _api() -> Any:
    from paste import deploy  # noqa: PLC0415

    return deploy.loadapp(f"config:{API_PASTE}", name="osapi_compute")


def _ask_the_conductor() -> None:
    from nova.conductor import rpcapi  # noqa: PLC0415
    from nova.db.main import api  # noqa: PLC0415
    from nova.objects import base  # noqa: PLC0415

    api.DISABLE_DB_ACCESS = True
    base.NovaObject.indirection_api = rpcapi.ConductorAPI()


def _start(role: str) -> Any:
    from nova import objects  # noqa: PLC0415
    from nova.service import Service  # noqa: PLC0415

    objects.Service.enable_min_version_cache()
    topics = import_module(f"nova.{role}.rpcapi")
    more = {}
    if role == "compute":
        import os_brick  # noqa: PLC0415
        import os_vif  # noqa: PLC0415
        from nova.conf import CONF  # noqa: PLC0415

        os_brick.setup(CONF)
        os_vif.initialize()
        if hasattr(topics, "RPC_TOPIC_ALT"):
            more["topic_alt"] = topics.RPC_TOPIC_ALT
    service = Service.create(binary=f"nova-{role}", topic=topics.RPC_TOPIC, **more)
    service.start()
    return service


def _find_hosts() -> None:
    from nova.context import get_admin_context  # noqa: PLC0415
    from nova.objects import host_mapping  # noqa: PLC0415

    host_mapping.discover_hosts(get_admin_context())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException:  # noqa: BLE001 - threads that do not end are left behind
        traceback.print_exc()
    os._exit(1)
