"""libvirt, through its own Python bindings; the one place where its errors become ours."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import libvirt

from ramshelf.core.errors import HostError, InputError, RamshelfError, RefusedError, ServiceError
from ramshelf.core.requirements import Version, libvirt_version

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
"""virsh's words."""

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
    libvirt.VIR_ERR_HOOK_SCRIPT_FAILED: (RefusedError, "guest.vetoed", "libvirt's hook refuses this", ""),
    libvirt.VIR_ERR_OPERATION_INVALID: (RefusedError, "guest.state", "libvirt will not do that now", ""),
    libvirt.VIR_ERR_OPERATION_TIMEOUT: (
        ServiceError,
        "libvirt.busy",
        "libvirt is still busy with this guest",
        "Try again when the other operation has ended.",
    ),
    libvirt.VIR_ERR_NO_SUPPORT: (HostError, "libvirt.unsupported", "libvirt cannot do that here", ""),
    libvirt.VIR_ERR_XML_ERROR: _XML_REFUSED,
    libvirt.VIR_ERR_XML_DETAIL: _XML_REFUSED,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: _XML_REFUSED,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: _XML_REFUSED,
}
"""libvirt's error codes: what they mean to a user of ramshelf; any other is ``libvirt.failed``."""

_HOOK_OUTPUT = re.compile(r"unexpected (?:exit status|fatal signal) \d+: (?P<output>.+)")
_OWN_HOOK = re.compile(r"ramshelf: (?P<sentence>.+) \[(?P<code>[a-z.-]+)\](?: hint: (?P<hint>.+))?")


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain that libvirt knows. ``domain_id`` is None unless it is active."""

    name: str
    uuid: str
    domain_id: int | None
    state: str

    @property
    def active(self) -> bool:
        """Whether QEMU runs for it."""
        return self.domain_id is not None


class Hypervisor:
    """A connection to libvirt's QEMU driver on this host; a context manager.

    Every method raises ServiceError ``libvirt.*`` where libvirt cannot be reached or goes away, RefusedError
    ``guest.not-found`` for a name that it does not know, and what ``_MEANINGS`` says besides.
    """

    def __init__(self, uri: str, *, read_only: bool = False) -> None:
        _require_local(uri)
        self.uri = uri
        self._connection: Any = None
        with self._translated():
            self._connection = libvirt.openReadOnly(uri) if read_only else libvirt.open(uri)
            driver = self._connection.getType()
        if driver != "QEMU":
            self._connection.close()
            raise HostError(
                "libvirt.driver", f"{uri} is libvirt's {driver} driver; ramshelf works with QEMU."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    def libvirt_version(self) -> Version:
        """The daemon's version."""
        with self._translated():
            return libvirt_version(self._connection.getLibVersion())

    def qemu_version(self) -> Version:
        """The version of the QEMU that the host's own architecture runs with by default."""
        with self._translated():
            return libvirt_version(self._connection.getVersion())

    def host_uuid(self) -> str:
        """The name that libvirt has for this host."""
        with self._translated():
            match = re.search(r"<uuid>([^<]+)</uuid>", self._connection.getCapabilities())
        return match[1] if match else ""

    def active(self) -> tuple[Domain, ...]:
        """All active domains in one call, which asks no QEMU anything; by id."""
        with self._translated():
            records = self._connection.getAllDomainStats(
                libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
            )
            domains = [
                Domain(
                    name=domain.name(),
                    uuid=domain.UUIDString(),
                    domain_id=domain.ID(),
                    state=_STATES.get(stats.get("state.state"), "no state"),
                )
                for domain, stats in records
            ]
        return tuple(sorted(domains, key=lambda domain: domain.domain_id or 0))

    def names(self, *, active: bool | None = None) -> tuple[str, ...]:
        """The names of the domains, sorted: all, or only the active or inactive ones."""
        flags = {
            None: 0,
            True: libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE,
            False: libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE,
        }[active]
        with self._translated():
            return tuple(sorted(domain.name() for domain in self._connection.listAllDomains(flags)))

    def find(self, name: str) -> Domain:
        """The domain of this name."""
        with self._translated():
            domain = self._lookup(name)
            state, _ = domain.state()
            domain_id = domain.ID()
        return Domain(
            name=domain.name(),
            uuid=domain.UUIDString(),
            domain_id=domain_id if domain_id >= 0 else None,
            state=_STATES.get(state, "no state"),
        )

    def live_xml(self, name: str) -> str:
        """What the domain is now: as it runs, or its definition where it does not."""
        with self._translated():
            return str(self._lookup(name).XMLDesc())

    def definition(self, name: str) -> str:
        """The domain's definition with its secrets, fit to be defined again."""
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        with self._translated():
            return str(self._lookup(name).XMLDesc(flags))

    def saved_xml(self, name: str) -> str | None:
        """The XML inside the domain's managed save image, None where there is none."""
        with self._translated():
            domain = self._lookup(name)
            return str(domain.managedSaveGetXMLDesc()) if domain.hasManagedSaveImage() else None

    def define(self, xml: str, *, validate: bool = False) -> None:
        """Define the domain, new or anew; ``validate`` holds it against libvirt's schema first."""
        with self._translated():
            flags = libvirt.VIR_DOMAIN_DEFINE_VALIDATE if validate else 0
            self._connection.defineXMLFlags(xml, flags)

    def undefine(self, name: str) -> None:
        """Forget a definition, and nothing that holds data: firmware variables stay."""
        with self._translated():
            self._lookup(name).undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)

    def start(self, name: str) -> None:
        """Start a defined domain; RefusedError ``guest.vetoed`` with what libvirt's hook said."""
        with self._translated():
            self._lookup(name).create()

    def attempt(self, xml: str) -> str:
        """Start a transient guest, paused, that is not expected to start: why it did not, '' if it did.

        It is ended at once if it starts.
        """
        try:
            with self._translated():
                self._connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED).destroy()
        except RamshelfError as error:
            if error.code.startswith("libvirt.") and error.code != "libvirt.failed":
                raise
            return error.sentence
        return ""

    def ask_to_stop(self, name: str) -> None:
        """Press the guest's power button (or use its agent, as libvirt sees fit); does not wait."""
        with self._translated():
            self._lookup(name).shutdown()

    def destroy(self, name: str) -> None:
        """End the domain at once."""
        with self._translated():
            self._lookup(name).destroy()

    def _lookup(self, name: str) -> Any:
        return self._connection.lookupByName(name)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except libvirt.libvirtError as error:
            raise self._translate(error) from error

    def _translate(self, error: Any) -> RamshelfError:
        """Our error for libvirt's, by its code and by whether the connection stands."""
        code = error.get_error_code()
        message = " ".join((error.get_error_message() or str(error)).split()).rstrip(".")
        facts = {"uri": self.uri, "libvirt_error": code, "message": message}
        if code in _PERMISSION or (self._connection is None and "Permission denied" in message):
            return HostError(
                "libvirt.permission",
                f"This user may not do that with libvirt at {self.uri}: {message}.",
                hint="Run it as root, or as a member of the group libvirt.",
                facts=facts,
            )
        if self._connection is None:
            return ServiceError(
                "libvirt.unreachable",
                f"libvirt cannot be reached at {self.uri}: {message}.",
                hint="See that libvirtd (or virtqemud) runs: systemctl status libvirtd virtqemud.",
                facts=facts,
            )
        if not self._alive():
            return ServiceError(
                "libvirt.connection-lost",
                f"libvirt at {self.uri} went away in the middle of this: {message}.",
                hint="See that it runs, then give the same command again.",
                facts=facts,
            )
        if code == libvirt.VIR_ERR_HOOK_SCRIPT_FAILED and (output := _HOOK_OUTPUT.search(message)):
            message = output["output"]
            if own := _OWN_HOOK.search(message):
                return RefusedError(own["code"], own["sentence"], hint=own["hint"] or "", facts=facts)
        kind, name, meaning, hint = _MEANINGS.get(
            code, (ServiceError, "libvirt.failed", "libvirt failed", "")
        )
        return kind(name, f"{meaning}{': ' if meaning else ''}{message}.", hint=hint, facts=facts)

    def _alive(self) -> bool:
        try:
            return bool(self._connection.isAlive())
        except libvirt.libvirtError:
            return False


def _require_local(uri: str) -> None:
    """Refuse a URI of another host, or of a user's own session: the store is this system's."""
    parts = urlsplit(uri)
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
