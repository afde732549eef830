"""The options, in Nova's own group for filters and weighers.

``[ramshelf]`` is not used: ramshelf's own commands read nova.conf too, and refuse keys there that
are not theirs.
"""

import nova.conf
from oslo_config import cfg

GROUP = "filter_scheduler"

SCHEDULER_OPTIONS = (
    cfg.IntOpt(
        "file_backed_memory_cache_seconds",
        default=60,
        min=0,
        help="""
How long FileBackedMemoryFilter keeps what Placement says of hosts.

Which hosts are file-backed changes only when a nova-compute is started with another ``[libvirt]
file_backed_memory``. So long may a host be taken for what it was before; it then refuses the server
itself, and Nova tries another host. 0 asks Placement for each request that depends on it.

Related options:

* ``[filter_scheduler] enabled_filters``
""",
    ),
    cfg.StrOpt(
        "file_backed_memory_when_unknown",
        default="reject",
        choices=(
            ("reject", "no host passes for a request that depends on it"),
            ("accept", "every host passes, as without the filter"),
        ),
        help="""
What FileBackedMemoryFilter does while Placement does not say which hosts are file-backed.

Requests that may go to any host pass in either case.

Related options:

* ``[filter_scheduler] enabled_filters``
""",
    ),
    cfg.BoolOpt(
        "file_backed_memory_require_aggregate_ratio",
        default=False,
        help="""
Skip file-backed hosts in an aggregate whose ``ram_allocation_ratio`` is not 1.0.

File-backed memory cannot be overcommitted, and Nova's guide asks for a ratio of 1.0 of the host and
of all its aggregates; no part of Nova checks the aggregates. FileBackedMemoryFilter warns of each
such host once in any case.

Related options:

* ``[filter_scheduler] enabled_filters``
* ``ram_allocation_ratio``
""",
    ),
    cfg.ListOpt(
        "file_backed_memory_mdev_resource_classes",
        default=["VGPU"],
        help="""
Resource classes that give a server a mediated device.

VFIO pins the memory of a server with such a device, which is impossible on a store of kind ``disk``
or ``dax``. Name here what the ``mdev_class`` options of the compute hosts name besides.

Related options:

* ``[devices] enabled_mdev_types``
* ``[mdev_TYPE] mdev_class``
""",
    ),
    cfg.FloatOpt(
        "store_headroom_weight_multiplier",
        default=1.0,
        help="""
Multiplier used for weighing the headroom of the store and RAM of hosts, by what their guests use.

A positive value prefers hosts with more of it, a negative one those with less. May be set for an
aggregate, as metadata of the same name.

Related options:

* ``[filter_scheduler] weight_classes``
""",
    ),
)

CONF = nova.conf.CONF
CONF.register_opts(SCHEDULER_OPTIONS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options by group, for oslo-config-generator and oslo-config-validator."""
    return [(GROUP, list(SCHEDULER_OPTIONS))]
