"""libvirt, through its own Python bindings; the one place where its errors become ours."""

import contextlib
import json
import re
import shlex
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty
from types import TracebackType
from typing import Any, Self, TypeVar

import libvirt

from ramshelf.core.agent.events import Event, What
from ramshelf.core.config import Config
from ramshelf.core.errors import HostError, InputError, RamshelfError, RefusedError, ServiceError
from ramshelf.core.migration.live import LiveOptions, Progress, read_progress
from ramshelf.core.record import dataclass, replace
from ramshelf.core.requirements import Version, libvirt_version
from ramshelf.core.secrets import hide
from ramshelf.system.steps import log_step
from ramshelf.system.worker import Answer, Worker

T = TypeVar("T")

# Without a handler libvirt prints every error on stderr itself.
libvirt.registerErrorHandler(f=lambda _context, _error: None, ctx=None)

_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: "no state",
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "idle",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "in shutdown",
    libvirt.VIR_DOMAIN_SHUTOFF: "shut off",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "pmsuspended",
}
"""What virsh calls the states of a domain."""

_STARTING_UP = libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP
"""The state and its reason from the beginning of a start until QEMU is there."""

_PERMISSION = {
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_CANCELLED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    libvirt.VIR_ERR_OPERATION_DENIED,
    libvirt.VIR_ERR_ACCESS_DENIED,
}
_XML_REFUSED = (InputError, "xml.refused", "libvirt refuses the domain XML", "")
_MEANINGS: dict[int, tuple[type[RamshelfError], str, str, str]] = {
    libvirt.VIR_ERR_NO_DOMAIN: (
        RefusedError,
        "guest.not-found",
        "",
        "'virsh list --all' shows all guests.",
    ),
    libvirt.VIR_ERR_HOOK_SCRIPT_FAILED: (
        RefusedError,
        "guest.vetoed",
        "libvirt's hook refuses this",
        "",
    ),
    libvirt.VIR_ERR_OPERATION_INVALID: (
        RefusedError,
        "guest.state",
        "libvirt will not do that now",
        "",
    ),
    libvirt.VIR_ERR_OPERATION_TIMEOUT: (
        ServiceError,
        "libvirt.busy",
        "libvirt is still busy with this guest",
        "Try again when the other operation has ended.",
    ),
    libvirt.VIR_ERR_NO_SUPPORT: (
        HostError,
        "libvirt.unsupported",
        "libvirt cannot do that here",
        "",
    ),
    libvirt.VIR_ERR_XML_ERROR: _XML_REFUSED,
    libvirt.VIR_ERR_XML_DETAIL: _XML_REFUSED,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: _XML_REFUSED,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: _XML_REFUSED,
}
"""What libvirt's error codes mean to a user of ramshelf; any other is ``libvirt.failed``."""

_ENDED_JOBS = frozenset(
    {
        libvirt.VIR_DOMAIN_JOB_COMPLETED,
        libvirt.VIR_DOMAIN_JOB_FAILED,
        libvirt.VIR_DOMAIN_JOB_CANCELLED,
    }
)

_STARTED = {
    libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED: "booted",
    libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED: "migrated",
    libvirt.VIR_DOMAIN_EVENT_STARTED_RESTORED: "restored",
    libvirt.VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT: "from-snapshot",
    libvirt.VIR_DOMAIN_EVENT_STARTED_WAKEUP: "wakeup",
}
_STOPPED = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: "migrated",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: "saved",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "failed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT: "from-snapshot",
}
START_REASONS, STOP_REASONS = tuple(_STARTED.values()), tuple(_STOPPED.values())
_LIFECYCLE: dict[int, tuple[What, dict[int, str]]] = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: (What.STARTED, _STARTED),
    libvirt.VIR_DOMAIN_EVENT_STOPPED: (What.STOPPED, _STOPPED),
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: (What.SUSPENDED, {}),
    libvirt.VIR_DOMAIN_EVENT_RESUMED: (What.RESUMED, {}),
}
_OTHER_EVENTS = {
    "VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE": What.BALLOON,
    "VIR_DOMAIN_EVENT_ID_DEVICE_ADDED": What.MEMORY,
    "VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED": What.MEMORY,
    "VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE": What.MEMORY,  # libvirt 7.9
    "VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION": What.READ,
}
_OPERATIONS = {
    libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE: "save",
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: "outgoing migration",
    libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT: "snapshot",
    libvirt.VIR_DOMAIN_JOB_OPERATION_DUMP: "dump",
}
"""What virsh domjobinfo calls those of libvirt's jobs that ramshelf tells apart."""

_KEEP_ALIVE_SECONDS, _KEEP_ALIVE_COUNT = 5, 3
"""A daemon that answers nothing for so long counts as gone (virConnectSetKeepAlive)."""

_HANGS = "See whether libvirtd (or virtqemud) hangs: systemctl status libvirtd virtqemud."
_MOST_LEFT = 16
"""The most connections that are let go while libvirt has not answered their last question.

Each has a thread and two descriptors until it answers, and a libvirt may hang for days.
"""

_left: list[Worker] = []

_NO_KVM = re.compile(
    r"preferred machine for .* type=kvm|capabilities for .*domaintype=kvm"
    r"|does not support virt type 'kvm'"
)
"""What libvirt says of a guest of type kvm where QEMU, as libvirt has probed it, has no KVM."""

_HOOK_OUTPUT = re.compile(r"unexpected (?:exit status|fatal signal) \d+: (?P<output>.+)")
_OWN_HOOK = re.compile(
    r"(?:.*\s)?ramshelf: (?P<sentence>.+) \[(?P<code>[a-z.-]+)\](?: hint: (?P<hint>.+))?"
)
"""What ramshelf's hook has said, which is in the last such line.

The shell, too, begins what it says of a script with the script's path.
"""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain that libvirt knows; ``domain_id`` is None unless it is active.

    ``starting``: it is active, and libvirt has yet to tell that it has started. That is known of
    what ``active`` returns alone.
    """

    name: str
    uuid: str
    domain_id: int | None
    state: str
    starting: bool = False

    @property
    def active(self) -> bool:
        """Whether QEMU runs for the domain."""
        return self.domain_id is not None


class Request:
    """Something that libvirt was asked for, and is busy with or waits to begin."""

    def __init__(self, answer: Answer, translate: Callable[[Any], RamshelfError]) -> None:
        self._answer = answer
        self._translate = translate

    def ended(self, patience: float) -> bool:
        """Tell whether it has ended well within so many seconds.

        Raises what has gone wrong.
        """
        try:
            _, error = self._answer.get(timeout=patience)
        except Empty:
            return False
        if isinstance(error, libvirt.libvirtError):
            raise self._translate(error) from error
        if error is not None:
            raise error
        return True


class Hypervisor:
    """A connection to libvirt's QEMU driver, on this host unless ``elsewhere``; a context manager.

    Every method raises ServiceError ``libvirt.*`` where libvirt cannot be reached or goes away,
    RefusedError ``guest.not-found`` for a name that it does not know, and what ``_MEANINGS`` says
    besides.

    After ``patience`` seconds without an answer libvirt counts as gone; None waits for ever.
    """

    driver = "QEMU"
    """libvirt's name for the driver that the connection must have."""

    def __init__(
        self,
        uri: str,
        *,
        read_only: bool = False,
        patience: float | None = None,
        elsewhere: bool = False,
    ) -> None:
        if not elsewhere:
            _require_local(uri)
        self.uri = uri
        self._patience = patience
        self._elsewhere = elsewhere
        self._watches: list[int] = []
        _require_answers(uri)
        self._worker = Worker()
        self._connection: Any = None
        try:
            self._connection = self._ask(
                lambda _: libvirt.openReadOnly(uri) if read_only else libvirt.open(uri)
            )
            driver = self._ask(lambda connection: connection.getType())
        except BaseException:
            _let_go(self._worker)
            raise
        if driver != self.driver:
            self._close()
            raise HostError(
                "libvirt.driver", f"{uri} is libvirt's {driver} driver; ramshelf works with QEMU."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._close()
        elif issubclass(kind, Exception):
            self.close()
        # Else, as with Ctrl-C, a call may still block, and the process is about to end.

    def close(self) -> None:
        """Let the connection go, without waiting for a libvirt that does not answer."""
        self._worker.post(self._close_quietly)
        _let_go(self._worker)

    def watch(self, tell: Callable[[Event], None]) -> None:
        """Have ``tell`` called for what happens, until the connection is lost.

        The thread that runs ``run_events`` calls it. ``tell`` must not call libvirt, nor wait.
        """

        def watch(connection: Any) -> None:
            connection.setKeepAlive(_KEEP_ALIVE_SECONDS, _KEEP_ALIVE_COUNT)
            connection.registerCloseCallback(lambda *_: tell(Event(what=What.LOST)), None)
            register(connection, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle)
            for name, what in _OTHER_EVENTS.items():
                if (number := getattr(libvirt, name, None)) is not None:
                    with contextlib.suppress(libvirt.libvirtError):  # an older daemon
                        register(connection, number, partial(other, what))

        def register(connection: Any, number: int, callback: Callable[..., None]) -> None:
            self._watches.append(connection.domainEventRegisterAny(None, number, callback, None))

        def lifecycle(_connection: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
            if event in _LIFECYCLE:
                what, reasons = _LIFECYCLE[event]
                tell(_event(what, domain, reasons.get(detail, "")))

        def other(what: What, _connection: Any, domain: Any, *_: Any) -> None:
            tell(_event(what, domain))

        self._ask(watch)

    def libvirt_version(self) -> Version:
        """Return the daemon's version."""
        return libvirt_version(self._ask(lambda connection: connection.getLibVersion()))

    def qemu_version(self) -> Version:
        """Return the version of the QEMU that the host's own architecture runs with by default."""
        return libvirt_version(self._ask(lambda connection: connection.getVersion()))

    def host_uuid(self) -> str:
        """Return the UUID that libvirt has for this host; '' where it names none."""
        match = re.search(
            r"<uuid>([^<]+)</uuid>", self._ask(lambda connection: connection.getCapabilities())
        )
        return match[1] if match else ""

    def capabilities(self) -> str:
        """Return the XML in which libvirt says what this host can do."""
        return str(self._ask(lambda connection: connection.getCapabilities()))

    def security_models(self) -> tuple[str, ...] | None:
        """Return the models of libvirt's security drivers, such as ``apparmor`` and ``dac``.

        The result is None where libvirt names none.
        """
        models = re.findall(r"<secmodel>\s*<model>([^<]*)</model>", self.capabilities())
        return tuple(models) or None

    def host_name(self) -> str:
        """Return what libvirt calls this host: the name of nova-compute's resource provider."""
        return str(self._ask(lambda connection: connection.getHostname()))

    def active(self) -> tuple[Domain, ...]:
        """Return all active domains, sorted by id, in one call that asks no QEMU anything."""
        records = self._ask(
            lambda connection: connection.getAllDomainStats(
                libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
            )
        )
        domains = (
            replace(
                _domain(domain, stats.get("state.state")),
                starting=(stats.get("state.state"), stats.get("state.reason")) == _STARTING_UP,
            )
            for domain, stats in records
        )
        return tuple(sorted(domains, key=lambda domain: domain.domain_id or 0))

    def names(self, *, active: bool | None = None) -> tuple[str, ...]:
        """Return the names of the domains, sorted: all, or only the active or inactive ones."""
        flags = {
            None: 0,
            True: libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE,
            False: libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE,
        }[active]
        domains = self._ask(lambda connection: connection.listAllDomains(flags))
        return tuple(sorted(domain.name() for domain in domains))

    def uuids(self) -> frozenset[str]:
        """Return the UUIDs of all domains, whether they run or not."""
        domains = self._ask(lambda connection: connection.listAllDomains())
        return frozenset(domain.UUIDString() for domain in domains)

    def find(self, name: str) -> Domain:
        """Return the domain of this name."""

        def find(domain: Any) -> Domain:
            return _domain(domain, domain.state()[0])

        return self._ask_domain(name, find)

    def live_xml(self, name: str) -> str:
        """Return the XML of the domain as it runs, or its definition where it does not."""
        return str(self._ask_domain(name, lambda domain: domain.XMLDesc()))

    def definition(self, name: str) -> str:
        """Return the domain's definition with its secrets, fit to be defined again."""
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return str(self._ask_domain(name, lambda domain: domain.XMLDesc(flags)))

    def saved_xml(self, name: str) -> str | None:
        """Return the XML inside the domain's managed save image; None where there is none."""

        def saved(domain: Any) -> str | None:
            return str(domain.managedSaveGetXMLDesc()) if domain.hasManagedSaveImage() else None

        return self._ask_domain(name, saved)

    def define(self, xml: str, *, validate: bool = False) -> None:
        """Define the domain, new or anew; ``validate`` holds it against libvirt's schema first."""
        log_step("virsh define /dev/stdin")
        flags = libvirt.VIR_DOMAIN_DEFINE_VALIDATE if validate else 0
        self._ask(lambda connection: connection.defineXMLFlags(xml, flags))

    def undefine(self, name: str) -> None:
        """Forget a domain's definition, but nothing that holds data: firmware variables stay."""
        log_step(f"virsh undefine --keep-nvram {shlex.quote(name)}")
        flags = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
        self._ask_domain(name, lambda domain: domain.undefineFlags(flags))

    def start(self, name: str) -> None:
        """Start a defined domain.

        Raises RefusedError with what libvirt's hook said, where that refuses it: under the code
        that ramshelf's hook gives, else ``guest.vetoed``.
        """
        log_step(f"virsh start {shlex.quote(name)}")
        self._ask_domain(name, lambda domain: domain.create())

    def attempt(self, xml: str) -> str:
        """Start a transient guest that is not expected to start, and return why it did not.

        The guest is started paused. If it does start, it is ended at once, and '' is returned.
        """
        try:
            self._ask(
                lambda connection: connection.createXML(
                    xml, libvirt.VIR_DOMAIN_START_PAUSED
                ).destroy()
            )
        except RamshelfError as error:
            if error.code.startswith("libvirt.") and error.code != "libvirt.failed":
                raise
            return error.sentence
        return ""

    def ask_to_stop(self, name: str) -> None:
        """Press the guest's power button (or use its agent, as libvirt sees fit); do not wait."""
        log_step(f"virsh shutdown {shlex.quote(name)}")
        self._ask_domain(name, lambda domain: domain.shutdown())

    def monitor(self, name: str, command: str, **arguments: object) -> Any:
        """Return what the running domain's QEMU answers to a QMP command.

        libvirt marks the domain as tainted.
        """
        import libvirt_qemu  # noqa: PLC0415 - hardly ever needed

        text = json.dumps({"execute": command, "arguments": arguments})
        log_step(shlex.join(("virsh", "qemu-monitor-command", name, text)))
        answer = json.loads(
            self._ask_domain(name, lambda domain: libvirt_qemu.qemuMonitorCommand(domain, text, 0))
        )
        if "error" in answer:
            raise ServiceError(
                "libvirt.failed",
                f"QEMU refuses {command}: {answer['error'].get('desc', answer['error'])}.",
                facts={"guest": name, "command": command, "arguments": arguments},
            )
        return answer["return"]

    def destroy(self, name: str) -> None:
        """End the domain at once."""
        log_step(f"virsh destroy {shlex.quote(name)}")
        self._ask_domain(name, lambda domain: domain.destroy())

    def persistent(self, name: str) -> bool:
        """Tell whether libvirt keeps the domain's definition when it has ended."""
        return bool(self._ask_domain(name, lambda domain: domain.isPersistent()))

    def taken(self, name: str, uuid: str) -> bool:
        """Tell whether there is a domain of this name or UUID."""

        def taken(connection: Any) -> bool:
            domains = connection.listAllDomains()
            return any(domain.name() == name or domain.UUIDString() == uuid for domain in domains)

        return self._ask(taken)

    def migrate(self, name: str, destination: str, live_options: LiveOptions) -> Request:
        """Begin to migrate a running domain.

        Nothing else can be asked of this connection until the migration has ended. It goes peer to
        peer: the daemons do it among themselves, so that it comes to a good end, there or here, if
        this process does not live to see it. A persistent domain becomes persistent there and is
        undefined here.
        """

        def migrate() -> None:
            domain = self._connection.lookupByName(name)
            flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
            if domain.isPersistent():
                flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
            for wanted, flag in (
                (live_options.postcopy, libvirt.VIR_MIGRATE_POSTCOPY),
                (live_options.auto_converge, libvirt.VIR_MIGRATE_AUTO_CONVERGE),
                (live_options.parallel, libvirt.VIR_MIGRATE_PARALLEL),
            ):
                flags |= flag if wanted else 0
            values = {
                libvirt.VIR_MIGRATE_PARAM_URI: live_options.migrate_uri,
                libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS: live_options.parallel,
                libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: live_options.bandwidth_mib,
            }
            parameters = {key: value for key, value in values.items() if value}
            domain.migrateToURI3(destination, parameters, flags)

        log_step(f"virsh migrate --live --p2p {shlex.quote(name)} {hide(destination)}")
        return Request(self._worker.post(migrate), self._translate)

    def progress(self, name: str, *, completed: bool = False) -> Progress | None:
        """Return how far the domain's job is; None where there is none.

        With ``completed``, it is what the domain's last job came to.
        """
        flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED if completed else 0
        try:
            stats = self._ask_domain(name, lambda domain: domain.jobStats(flags))
        except RefusedError:  # it has gone meanwhile
            return None
        return read_progress(stats) if stats.get("type") != libvirt.VIR_DOMAIN_JOB_NONE else None

    def abort_job(self, name: str) -> None:
        """Have the domain's job given up.

        Raises RefusedError ``guest.state`` where there is none.
        """
        log_step(f"virsh domjobabort {shlex.quote(name)}")
        self._ask_domain(name, lambda domain: domain.abortJob())

    def start_postcopy(self, name: str) -> None:
        """Have a domain that is being migrated run on the destination from now on."""
        log_step(f"virsh migrate-postcopy {shlex.quote(name)}")
        self._ask_domain(name, lambda domain: domain.migrateStartPostCopy())

    def state(self, domain_id: int) -> str:
        """Return the state of the domain with this id, in virsh's words.

        It is the state that libvirt has on its own record.
        """
        return _STATES.get(
            self._ask_active(domain_id, lambda domain: domain.state()[0]), "no state"
        )

    def paused_by_request(self, domain_id: int) -> bool:
        """Tell whether the domain with this id is paused because somebody asked for it.

        That is not so where an error, a migration, a dump or the like has paused it.
        """
        asked = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER]
        return bool(self._ask_active(domain_id, lambda domain: domain.state()[:2]) == asked)

    def busy(self, domain_id: int) -> bool:
        """Tell whether the domain is being dumped, saved, restored or migrated."""
        try:
            kind = self._ask_active(domain_id, lambda domain: domain.jobInfo()[0])
        except RefusedError as error:
            if error.code != "guest.state":
                raise
            return True  # it is coming in: libvirt tells of that on the source only
        return kind not in {libvirt.VIR_DOMAIN_JOB_NONE, *_ENDED_JOBS}

    def job(self, domain_id: int) -> str:
        """Return what libvirt's job on the domain is, as in ``_OPERATIONS``; '' for none of these.

        Raises RefusedError ``guest.state`` for a domain that is coming in.
        """
        stats = self._ask_active(domain_id, lambda domain: domain.jobStats())
        if stats.get("type") in {libvirt.VIR_DOMAIN_JOB_NONE, *_ENDED_JOBS}:
            return ""
        return _OPERATIONS.get(stats.get("operation"), "")

    def suspend(self, domain_id: int) -> None:
        """Pause the domain with this id.

        On return its vCPUs have stopped and its devices are drained.
        """
        log_step(f"virsh suspend {domain_id}")
        self._ask_active(domain_id, lambda domain: domain.suspend())

    def resume(self, domain_id: int) -> None:
        """Let the domain with this id go on."""
        log_step(f"virsh resume {domain_id}")
        self._ask_active(domain_id, lambda domain: domain.resume())

    def resumer(self, domain_id: int) -> Callable[[], Request]:
        """Return a function that asks for the domain with this id to go on, and does not wait.

        Nothing else can be asked of this connection until that has ended.
        """
        domain = self._ask(lambda connection: connection.lookupByID(domain_id))

        def begin() -> Request:
            log_step(f"virsh resume {domain_id}")
            return Request(self._worker.post(domain.resume), self._translate)

        return begin

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Return the answer to what is asked of the connection."""
        try:
            return self._worker.call(lambda: question(self._connection), self._patience)
        except TimeoutError as error:
            raise ServiceError(
                "libvirt.no-answer",
                f"libvirt at {self.uri} did not answer within {self._patience:g} s.",
                hint=_HANGS,
                facts={"uri": self.uri},
            ) from error
        except libvirt.libvirtError as error:
            raise self._translate(error) from error

    def _ask_domain(self, name: str, question: Callable[[Any], T]) -> T:
        """Return the answer to what is asked of the domain of this name."""
        try:
            return self._ask(lambda connection: question(connection.lookupByName(name)))
        except RefusedError as error:
            if error.code == "guest.not-found":
                error.sentence = f"libvirt at {self.uri} knows no guest {name!r}."
                error.facts = {**error.facts, "guest": name}
            raise

    def _ask_active(self, domain_id: int, question: Callable[[Any], T]) -> T:
        """Return the answer to what is asked of this run of a domain.

        Raises RefusedError ``guest.not-found`` once it has ended.
        """
        return self._ask(lambda connection: question(connection.lookupByID(domain_id)))

    def _close(self) -> None:
        with contextlib.suppress(TimeoutError):
            self._worker.call(self._close_quietly, self._patience)
        _let_go(self._worker)

    def _close_quietly(self) -> None:
        """Drop the callbacks and the connection, and pass over libvirt's errors.

        A connection stays as long as it has callbacks, also one that is lost.
        """
        for watch in self._watches:
            with contextlib.suppress(libvirt.libvirtError):
                self._connection.domainEventDeregisterAny(watch)
        if self._watches:
            with contextlib.suppress(libvirt.libvirtError):
                self._connection.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    def _translate(self, error: Any) -> RamshelfError:
        """Make ramshelf's error of libvirt's, by its code and by whether the connection stands."""
        code = error.get_error_code()
        whole = " ".join((error.get_error_message() or str(error)).split())
        message = whole.rstrip(".")
        facts = {"uri": self.uri, "libvirt_error": code, "message": message}
        if code in _PERMISSION or (self._connection is None and "Permission denied" in message):
            return HostError(
                "libvirt.permission",
                f"This user may not do that with libvirt at {self.uri}: {message}.",
                hint="Run it as root, or as a member of the group libvirt.",
                facts=facts,
            )
        if self._connection is None:
            hint = "See that libvirtd (or virtqemud) runs: systemctl status libvirtd virtqemud."
            if self._elsewhere:
                hint = (
                    f"'virsh --connect {self.uri} list' has to work here, as root and without "
                    "a password: see to the host's name, the SSH key, and that libvirtd runs there."
                )
            return ServiceError(
                "libvirt.unreachable",
                f"libvirt cannot be reached at {self.uri}: {message}.",
                hint=hint,
                facts=facts,
            )
        if not self._alive():
            return ServiceError(
                "libvirt.connection-lost",
                f"libvirt at {self.uri} went away in the middle of this: {message}.",
                hint="See that it runs, then run the same command again.",
                facts=facts,
            )
        if code == libvirt.VIR_ERR_HOOK_SCRIPT_FAILED and (output := _HOOK_OUTPUT.search(whole)):
            message = output["output"].rstrip(".")
            if own := _OWN_HOOK.search(output["output"]):
                return RefusedError(
                    own["code"], own["sentence"], hint=own["hint"] or "", facts=facts
                )
        if _NO_KVM.search(message):
            return HostError(
                "host.kvm",
                "The guest is of type kvm, and libvirt has found no KVM on this host.",
                hint=(
                    "Enable virtualization in the firmware, load kvm_intel or kvm_amd, and restart "
                    "libvirtd. To try things out without KVM: <domain type='qemu'>."
                ),
                facts=facts,
            )
        kind, name, meaning, hint = _MEANINGS.get(
            code, (ServiceError, "libvirt.failed", "libvirt failed", "")
        )
        return kind(name, f"{meaning}{': ' if meaning else ''}{message}.", hint=hint, facts=facts)

    def _alive(self) -> bool:
        try:
            return bool(self._connection.isAlive())
        except libvirt.libvirtError:
            return False


def run_events() -> None:
    """Start a thread that receives what libvirt tells.

    This is called once in a process, before connections are made. The thread ends with the process:
    libvirt's loop must run as long as there are connections.
    """
    libvirt.virEventRegisterDefaultImpl()

    def loop() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=loop, name="libvirt-events", daemon=True).start()


def _event(what: What, domain: Any, reason: str = "") -> Event:
    return Event(what=what, guest=domain.name(), uuid=domain.UUIDString(), reason=reason)


def _domain(domain: Any, state: int | None) -> Domain:
    """Make a domain of libvirt's object, whose name, UUID and id are known without asking."""
    domain_id = domain.ID()
    return Domain(
        name=domain.name(),
        uuid=domain.UUIDString(),
        domain_id=domain_id if domain_id >= 0 else None,
        state=_STATES.get(state, "no state"),
    )


def _let_go(worker: Worker) -> None:
    worker.end()
    _left.append(worker)


def _require_answers(uri: str) -> None:
    """Raise ServiceError where too many questions to libvirt are still without an answer."""
    _left[:] = [worker for worker in _left if worker.alive]
    if len(_left) >= _MOST_LEFT:
        raise ServiceError(
            "libvirt.no-answer",
            f"libvirt at {uri} was not asked again: {len(_left)} questions wait for its answer.",
            hint=_HANGS,
            facts={"uri": uri},
        )


def _require_local(uri: str) -> None:
    """Raise HostError for a URI of another host, or of a user's own session.

    The store is this system's.
    """
    if uri == Config.connection_uri:
        return
    from urllib.parse import urlsplit  # noqa: PLC0415 - most hosts have the default

    try:
        parts = urlsplit(uri)
    except ValueError:
        return  # libvirt says what is wrong with it
    if parts.hostname:
        raise HostError(
            "libvirt.remote",
            f"{uri} names another host; the store can only be looked at on its own host.",
            hint=f"Run ramshelf on {parts.hostname}.",
        )
    if parts.path.endswith("/session"):
        raise HostError(
            "libvirt.session",
            f"{uri} is a user's own libvirt, which does not use the store.",
            hint="Use --connect qemu:///system.",
        )
