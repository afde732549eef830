"""Nova's API and Placement's, as tests use them."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from support.process import HANG, wait_until

_HEADERS = {
    "Content-Type": "application/json",
    "OpenStack-API-Version": "compute 2.96, placement 1.39",
    "X-Auth-Token": "admin",
}


class ApiError(Exception):
    """An API has refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a server is in ERROR; its user sees ``message``, an administrator also ``details``."""

    code: int
    message: str
    details: str


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server as GET /servers/UUID shows it; ``domain`` is libvirt's name for it."""

    uuid: str
    name: str
    status: str
    task: str | None
    domain: str
    host: str | None
    fault: Fault | None


class Api:
    """One service below one URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, method: str, path: str, document: object = None) -> Any:
        """Send a request and return the document of the answer; raise ApiError if it is refused."""
        request = urllib.request.Request(  # noqa: S310 - always HTTP
            self._url + path,
            method=method,
            headers=_HEADERS,
            data=None if document is None else json.dumps(document).encode(),
        )
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:  # noqa: S310
                body = answer.read()
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")) from None
        return json.loads(body) if body else None


class Placement(Api):
    """What Placement knows of hosts."""

    def provider(self, host: str) -> str:
        """Return the UUID of a host's resource provider."""
        [provider] = self.ask("GET", f"/resource_providers?name={host}")["resource_providers"]
        return str(provider["uuid"])

    def inventory(self, host: str) -> dict[str, Any]:
        """Return a host's inventory of MEMORY_MB."""
        found = self.ask("GET", f"/resource_providers/{self.provider(host)}/inventories")
        inventory: dict[str, Any] = found["inventories"]["MEMORY_MB"]
        return inventory

    def traits(self, host: str) -> set[str]:
        """Return a host's traits."""
        return set(self.ask("GET", f"/resource_providers/{self.provider(host)}/traits")["traits"])

    def add_traits(self, host: str, *traits: str) -> None:
        """Add traits to a host's own, as an operator does; Placement knows them afterwards."""
        for trait in traits:
            if trait.startswith("CUSTOM_"):
                self.ask("PUT", f"/traits/{trait}")
        path = f"/resource_providers/{self.provider(host)}/traits"

        def added() -> bool:
            found = self.ask("GET", path)
            try:
                self.ask("PUT", path, {**found, "traits": sorted({*found["traits"], *traits})})
            except ApiError as error:
                if error.status != 409:  # somebody else was quicker
                    raise
                return False
            return True

        wait_until(added, f"{host} has {traits}")

    def allocated_mib(self, host: str) -> dict[str, int]:
        """Return the MEMORY_MB of each server that has an allocation on this host."""
        found = self.ask("GET", f"/resource_providers/{self.provider(host)}/allocations")[
            "allocations"
        ]
        return {uuid: held["resources"]["MEMORY_MB"] for uuid, held in found.items()}


class Compute(Api):
    """Nova's API."""

    def flavor(self, memory_mib: int, **extra_specs: str) -> str:
        """Return the id of a flavor, made if need be; ``__`` in a name stands for a colon."""
        specs = {key.replace("__", ":"): value for key, value in extra_specs.items()}
        name = " ".join([f"{memory_mib}", *(f"{key}={value}" for key, value in specs.items())])
        known = {flavor["name"]: flavor["id"] for flavor in self.ask("GET", "/flavors")["flavors"]}
        if name not in known:
            flavor = {"name": name, "ram": memory_mib, "vcpus": 1, "disk": 0}
            known[name] = self.ask("POST", "/flavors", {"flavor": flavor})["flavor"]["id"]
            if specs:
                self.ask("POST", f"/flavors/{known[name]}/os-extra_specs", {"extra_specs": specs})
        return str(known[name])

    def create(self, flavor: str, image: str, name: str = "guest", **more: object) -> Server:
        """Ask for a server, and return it while it is being built."""
        server = {"name": name, "flavorRef": flavor, "imageRef": image, "networks": "none", **more}
        return self.server(self.ask("POST", "/servers", {"server": server})["server"]["id"])

    def server(self, uuid: str) -> Server:
        """Return a server as it is now; raise ApiError with status 404 if there is none."""
        return _server(self.ask("GET", f"/servers/{uuid}")["server"])

    def servers(self) -> list[Server]:
        """Return all servers."""
        return [
            _server(server)
            for server in self.ask("GET", "/servers/detail?all_tenants=1")["servers"]
        ]

    def act(self, server: Server, action: str, options: object = None) -> None:
        """Ask for an action by POST /servers/UUID/action."""
        self.ask("POST", f"/servers/{server.uuid}/action", {action: options})

    def delete(self, server: Server) -> None:
        """Delete a server, and wait until it is gone."""
        self.ask("DELETE", f"/servers/{server.uuid}")

        def gone() -> bool:
            return server.uuid not in {each.uuid for each in self.servers()}

        wait_until(gone, f"{server.name} is deleted")

    def wait(self, server: Server, status: str) -> Server:
        """Return the server once it has this status and no task; ERROR instead fails the test."""
        deadline = time.monotonic() + HANG
        while True:
            now = self.server(server.uuid)
            if now.status == status and now.task is None:
                return now
            assert now.status != "ERROR", now
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {HANG} s: {server.name} is {status}; it is {now}")
            time.sleep(0.2)

    def placed(self, server: Server) -> Server:
        """Return what became of a server: it is ACTIVE, or ERROR."""

        def is_placed() -> bool:
            return self.server(server.uuid).status in {"ACTIVE", "ERROR"}

        wait_until(is_placed, f"{server.name} is placed")
        return self.server(server.uuid)

    def console(self, server: Server) -> str:
        """Return what the server has said over its serial port."""
        return str(
            self.ask("POST", f"/servers/{server.uuid}/action", {"os-getConsoleOutput": {}})[
                "output"
            ]
        )

    def actions(self, server: Server) -> list[dict[str, Any]]:
        """Return what was done with a server, the latest first, each with its events."""
        path = f"/servers/{server.uuid}/os-instance-actions"
        found = self.ask("GET", path)["instanceActions"]
        return [
            self.ask("GET", f"{path}/{action['request_id']}")["instanceAction"] for action in found
        ]

    def service(self, host: str) -> dict[str, Any]:
        """Return the compute service of a host.

        Its ``status`` is enabled or disabled, for ``disabled_reason``.
        """
        path = f"/os-services?binary=nova-compute&host={host}"
        [service] = self.ask("GET", path)["services"]
        return dict(service)

    def switch_service(self, host: str, **how: str) -> None:
        """Enable or disable a host's compute service, as an operator does."""
        self.ask("PUT", f"/os-services/{self.service(host)['id']}", how)

    def force_down(self, host: str, *, down: bool) -> None:
        """Tell Nova that a host is dead, as whoever has fenced it does, or that it no longer is."""
        self.ask("PUT", f"/os-services/{self.service(host)['id']}", {"forced_down": down})

    def aggregate(self, name: str, host: str, metadata: Mapping[str, str]) -> "Aggregate":
        """Make a new host aggregate with one host."""
        made = self.ask("POST", "/os-aggregates", {"aggregate": {"name": name}})["aggregate"]
        aggregate = Aggregate(self, made["id"], made["uuid"], host)
        aggregate.act("add_host", {"host": host})
        if metadata:
            aggregate.act("set_metadata", {"metadata": metadata})
        return aggregate


class Aggregate:
    """A host aggregate."""

    def __init__(self, compute: Compute, number: int, uuid: str, host: str) -> None:
        self._compute = compute
        self._path = f"/os-aggregates/{number}"
        self._host = host
        self.uuid = uuid

    def act(self, action: str, options: object) -> None:
        """Ask for an action by POST /os-aggregates/ID/action."""
        self._compute.ask("POST", f"{self._path}/action", {action: options})

    def delete(self) -> None:
        """Remove its host, then the aggregate."""
        self.act("remove_host", {"host": self._host})
        self._compute.ask("DELETE", self._path)


def _server(document: dict[str, Any]) -> Server:
    fault = document.get("fault")
    return Server(
        uuid=document["id"],
        name=document["name"],
        status=document["status"],
        task=document["OS-EXT-STS:task_state"],
        domain=document["OS-EXT-SRV-ATTR:instance_name"],
        host=document["OS-EXT-SRV-ATTR:host"],
        fault=fault
        and Fault(code=fault["code"], message=fault["message"], details=fault.get("details", "")),
    )
