"""Nova's own objects as its scheduler has them.

This needs a Nova, so it is for tests of ramshelf-nova alone.
"""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from nova import objects
from nova.scheduler.host_manager import HostState

objects.register_all()

CELL = str(uuid.uuid4())


def host(
    name: str,
    *,
    aggregates: Iterable[Any] = (),
    stats: Mapping[str, Any] | None = None,
    total_mib: int = 8192,
    used_mib: int = 0,
) -> HostState:
    """Return a host as it has reported to the scheduler."""
    state = HostState(name, name, CELL)
    state.update(compute=compute_node(name, stats=stats, total_mib=total_mib, used_mib=used_mib))
    state.aggregates = list(aggregates)
    return state


def compute_node(
    name: str, *, stats: Mapping[str, Any] | None = None, total_mib: int = 8192, used_mib: int = 0
) -> objects.ComputeNode:
    """Return what nova-compute records of its host; the UUID follows from the name."""
    return objects.ComputeNode(
        uuid=host_uuid(name),
        host=name,
        hypervisor_hostname=name,
        hypervisor_type="QEMU",
        hypervisor_version=7002000,
        cpu_info="{}",
        vcpus=8,
        vcpus_used=0,
        memory_mb=total_mib,
        memory_mb_used=used_mib,
        free_ram_mb=total_mib - used_mib,
        local_gb=100,
        local_gb_used=0,
        free_disk_gb=100,
        disk_available_least=100,
        numa_topology=None,
        pci_device_pools=None,
        supported_hv_specs=[],
        metrics=None,
        host_ip=None,
        stats={key: str(value) for key, value in (stats or {}).items()},
        cpu_allocation_ratio=1.0,
        ram_allocation_ratio=1.0,
        disk_allocation_ratio=1.0,
        updated_at=None,
    )


def host_uuid(name: str) -> str:
    """Return the UUID of a host's compute node and resource provider."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def aggregate(name: str, **metadata: str) -> objects.Aggregate:
    """Return a host aggregate."""
    return objects.Aggregate(id=1, uuid=str(uuid.uuid4()), name=name, hosts=[], metadata=metadata)


def request(
    extra_specs: Mapping[str, str] | None = None,
    *,
    image: Mapping[str, Any] | None = None,
    cells: Iterable[int | None] = (),
    pci: bool = False,
    requesters: Iterable[str] = (),
    hints: Mapping[str, list[str]] | None = None,
    destination: objects.Destination | None = None,
) -> objects.RequestSpec:
    """Return a request for a server.

    ``cells`` are the page sizes of its NUMA cells, as Nova resolves them; ``requesters`` is what
    besides the flavor asks for resources.
    """
    flavor = objects.Flavor(
        id=1,
        flavorid="1",
        name="small",
        vcpus=1,
        memory_mb=128,
        root_gb=1,
        ephemeral_gb=0,
        swap=0,
        extra_specs=dict(extra_specs or {}),
    )
    topology = objects.InstanceNUMATopology(
        cells=[
            objects.InstanceNUMACell(
                id=number, cpuset={number}, pcpuset=set(), memory=64, pagesize=size
            )
            for number, size in enumerate(cells)
        ]
    )
    requests = [objects.InstancePCIRequest(count=1, alias_name="nic", spec=[{"vendor_id": "8086"}])]
    return objects.RequestSpec(
        instance_uuid=str(uuid.uuid4()),
        project_id="project",
        user_id="user",
        num_instances=1,
        flavor=flavor,
        image=objects.ImageMeta.from_dict({"properties": dict(image or {})}),
        numa_topology=topology if topology.cells else None,
        pci_requests=objects.InstancePCIRequests(requests=requests if pci else []),
        requested_resources=[objects.RequestGroup(requester_id=each) for each in requesters],
        scheduler_hints=dict(hints or {}),
        requested_destination=destination,
        ignore_hosts=None,
        force_hosts=None,
        force_nodes=None,
        availability_zone=None,
        limits=None,
        retry=None,
        instance_group=None,
    )
