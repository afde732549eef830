"""What a request for a server demands of its host's memory, read from Nova's RequestSpec."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nova.context
from nova import exception
from nova.compute import task_states
from nova.objects.compute_node import ComputeNode
from nova.objects.instance import Instance
from nova.objects.request_spec import RequestSpec
from oslo_utils import strutils

from ramshelf_nova import extraspec
from ramshelf_nova.backing import Backing
from ramshelf_nova.conf import CONF

_RESOURCE = re.compile(r"resources[a-zA-Z0-9_-]{0,64}:(?P<resource_class>.+)")


@dataclass(frozen=True, kw_only=True)
class Demand:
    """One thing that a request asks for, and the backings with which it can have it."""

    reason: str
    backings: frozenset[Backing]


ANONYMOUS = frozenset({Backing.ANONYMOUS})
FILE_BACKED = frozenset({Backing.FILE, Backing.PINNABLE_FILE})
PINNABLE = frozenset({Backing.ANONYMOUS, Backing.PINNABLE_FILE})


def demands_of(spec: RequestSpec) -> tuple[Demand, ...]:
    """Return all that limits the choice of hosts; nothing for a server that may run anywhere."""
    extra_specs = spec.flavor.extra_specs if "extra_specs" in spec.flavor else {}
    image = spec.image.properties if "image" in spec and spec.image else None
    return (
        *(
            Demand(reason=reason, backings=ANONYMOUS)
            for reason in _not_on_files(spec, extra_specs, image)
        ),
        *(
            Demand(reason=reason, backings=PINNABLE)
            for reason in _pinning(spec, extra_specs, image)
        ),
        *_own_extra_spec(extra_specs),
    )


def left_by_live_migration(spec: RequestSpec) -> str | None:
    """Return the UUID of the compute node that the server is leaving while it runs.

    For every other request it is None. A request does not say what it is for. Each move names the
    server's cell; there the server's task tells a live migration apart from a resize, an evacuation
    and an unshelving (nova.compute.api sets it before it asks for a host).
    """
    destination = spec.requested_destination if "requested_destination" in spec else None
    cell = destination.cell if destination and "cell" in destination else None
    if cell is None:
        return None
    context = nova.context.get_admin_context()
    with nova.context.target_cell(context, cell) as cell_context:
        try:
            server = Instance.get_by_uuid(cell_context, spec.instance_uuid, expected_attrs=[])
        except exception.InstanceNotFound:  # it is new, or being deleted
            return None
        if server.task_state != task_states.MIGRATING:
            return None
        node = ComputeNode.get_by_host_and_nodename(cell_context, server.host, server.node)
    return str(node.uuid)


def same_as_source(*, file_backed: bool) -> Demand:
    """Return what a live migration demands.

    libvirt refuses a guest whose memory's source changes on the way.
    """
    return Demand(
        reason=(
            f"a live migration from a host with {'file-backed' if file_backed else 'anonymous'} "
            "memory"
        ),
        backings=FILE_BACKED if file_backed else ANONYMOUS,
    )


def _not_on_files(spec: RequestSpec, extra_specs: dict[str, str], image: Any) -> Iterator[str]:
    """Yield what Nova's driver, or libvirt, refuses with file-backed memory.

    The driver does so in _get_guest_memory_backing_config.
    """
    if extra_specs.get("hw:mem_page_size"):
        yield "the flavor asks for memory pages of a size (hw:mem_page_size)"
    if image and image.get("hw_mem_page_size"):
        yield "the image asks for memory pages of a size (hw_mem_page_size)"
    topology = spec.numa_topology if "numa_topology" in spec else None
    if topology and any(cell.pagesize for cell in topology.cells if "pagesize" in cell):
        yield "its NUMA topology asks for memory pages of a size"
    if _true(extra_specs.get("hw:locked_memory")):
        yield "the flavor asks for locked memory (hw:locked_memory)"
    if image and image.get("hw_locked_memory"):
        yield "the image asks for locked memory (hw_locked_memory)"


def _pinning(spec: RequestSpec, extra_specs: dict[str, str], image: Any) -> Iterator[str]:
    """Yield what makes the kernel pin all of a guest's memory.

    That is memory encryption (SEV) and devices (VFIO).
    """
    if _true(extra_specs.get("hw:mem_encryption")):
        yield "the flavor asks for encrypted memory (hw:mem_encryption)"
    if image and image.get("hw_mem_encryption"):
        yield "the image asks for encrypted memory (hw_mem_encryption)"
    if "pci_requests" in spec and spec.pci_requests and spec.pci_requests.requests:
        yield "it asks for a PCI device"
    if extra_specs.get("accel:device_profile"):
        yield "the flavor asks for an accelerator (accel:device_profile)"
    groups = spec.requested_resources if "requested_resources" in spec else None
    if any(str(group.requester_id).startswith("device_profile_") for group in groups or ()):
        yield "one of its ports asks for an accelerator"
    mdev_classes = CONF.filter_scheduler.file_backed_memory_mdev_resource_classes
    for name, amount in extra_specs.items():
        match = _RESOURCE.fullmatch(name)
        if match and match["resource_class"] in mdev_classes and amount != "0":
            yield f"the flavor asks for a mediated device ({name})"


def _own_extra_spec(extra_specs: dict[str, str]) -> Iterator[Demand]:
    value = extra_specs.get(extraspec.NAME)
    if value == extraspec.REQUIRED:
        yield Demand(
            reason=f"the flavor requires file-backed memory ({extraspec.NAME})",
            backings=FILE_BACKED,
        )
    elif value == extraspec.FORBIDDEN:
        yield Demand(
            reason=f"the flavor forbids file-backed memory ({extraspec.NAME})", backings=ANONYMOUS
        )
    elif value is not None:  # set with an API microversion before 2.86, which does not validate
        yield Demand(
            reason=(
                f"{extraspec.NAME} of the flavor is {value!r}, neither {extraspec.REQUIRED} nor "
                f"{extraspec.FORBIDDEN}"
            ),
            backings=frozenset(),
        )


def _true(value: str | None) -> bool:
    return value is not None and strutils.bool_from_string(value)
