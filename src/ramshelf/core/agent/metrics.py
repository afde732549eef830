"""The agent's metrics: what each is called, which labels it has, and what it means.

docs/reference/metrics.md is printed from this table. Names are stable: dashboards and alerts rely
on them. The metrics of guests have the prefix and the label of the known libvirt exporters, so that
their series join with these.
"""

from dataclasses import dataclass
from typing import Literal

SECTIONS = {
    "guest": "Guests",
    "store": "The store",
    "life": "Starts and ends",
    "host": "The host",
    "placement": "Placement",
    "agent": "The agent",
}


@dataclass(frozen=True)
class Metric:
    """One metric; the name of a counter ends in ``_total``."""

    section: str
    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        """The metric's type in Prometheus' words."""
        return "counter" if self.name.endswith("_total") else "gauge"


_DOMAIN = ("domain",)
_TABLE = (
    Metric(
        "guest",
        "libvirt_domain_memory_backing_size_bytes",
        "Size of the memory files of a running guest.",
        _DOMAIN,
    ),
    Metric(
        "guest",
        "libvirt_domain_memory_backing_promised_bytes",
        "What the store has promised to a running guest: its memory files and what may still be "
        "plugged in.",
        _DOMAIN,
    ),
    Metric(
        "guest",
        "libvirt_domain_memory_backing_allocated_bytes",
        "What the memory files of a running guest occupy on the store.",
        _DOMAIN,
    ),
    Metric(
        "guest",
        "libvirt_domain_memory_backing_resident_bytes",
        "What of the memory files of a running guest is in RAM.",
        _DOMAIN,
    ),
    Metric(
        "guest",
        "libvirt_domain_memory_backing_nonresident_bytes",
        "What of the memory files of a running guest is allocated and not in RAM: swapped out of a "
        "tmpfs; on a disk also what the guest has never used.",
        _DOMAIN,
    ),
    Metric("store", "ramshelf_store_mounted", "Whether the store is there."),
    Metric(
        "store",
        "ramshelf_store_info",
        "The store: its kind, file system and mount point. Always 1.",
        ("kind", "file_system", "mount_point"),
    ),
    Metric("store", "ramshelf_store_size_bytes", "Size of the store's file system."),
    Metric(
        "store", "ramshelf_store_capacity_bytes", "Guest memory that the store can hold at all."
    ),
    Metric(
        "store",
        "ramshelf_store_reserved_bytes",
        "What nova.conf keeps back from Placement (reserved_host_memory_mb).",
    ),
    Metric(
        "store",
        "ramshelf_store_promised_bytes",
        "Guest memory that was admitted: what the memory files on the store may come to.",
    ),
    Metric("store", "ramshelf_store_free_bytes", "What a further guest may have."),
    Metric("store", "ramshelf_store_allocated_bytes", "What the memory files on the store occupy."),
    Metric("store", "ramshelf_store_resident_bytes", "What of the guests' memory files is in RAM."),
    Metric(
        "store",
        "ramshelf_store_nonresident_bytes",
        "What of the guests' memory files is allocated and not in RAM.",
    ),
    Metric("store", "ramshelf_store_unowned_bytes", "Promised on the store to nobody that runs."),
    Metric(
        "store",
        "ramshelf_store_device_read_bytes_total",
        "Bytes read from the store's device; for a tmpfs from all swap.",
    ),
    Metric(
        "store",
        "ramshelf_store_device_written_bytes_total",
        "Bytes written to the store's device; for a tmpfs to all swap.",
    ),
    Metric(
        "store",
        "ramshelf_store_write_errors_total",
        "Messages of the kernel's that it could not write to the store, since that was mounted. "
        "Absent for a tmpfs, and where the kernel's log cannot be read.",
    ),
    Metric("life", "ramshelf_guests", "Running guests, by where their memory is.", ("backing",)),
    Metric(
        "life",
        "ramshelf_guest_starts_total",
        "Guests that have started, by libvirt's reason; unseen: while the agent could not be told.",
        ("reason",),
    ),
    Metric(
        "life",
        "ramshelf_guest_stops_total",
        "Guests that have ended, by libvirt's reason; unseen: while the agent could not be told.",
        ("reason",),
    ),
    Metric(
        "life",
        "ramshelf_guest_refusals_total",
        "Guests that the hook or 'guest start' has refused, by the code of the error; also those "
        "that then passed by a bypass.",
        ("code",),
    ),
    Metric(
        "life",
        "ramshelf_hook_bypass_seconds",
        "For how long guests still pass whatever the hook says (ramshelf hook bypass); 0: they do "
        "not.",
    ),
    Metric(
        "life",
        "ramshelf_hook_bypassed_guests_total",
        "Guests that have passed because the hook was bypassed.",
    ),
    Metric(
        "life",
        "ramshelf_guest_start_written_bytes_total",
        "Bytes written to the store's device between guests' reservation and their start.",
    ),
    Metric(
        "life",
        "ramshelf_guest_stop_written_bytes_total",
        "Bytes written to the store's device from the agent's look before guests ended to the one "
        "after: an upper bound of what their ends have written.",
    ),
    Metric(
        "life",
        "ramshelf_late_reservations_total",
        "Running guests for which the agent has reserved what was missing.",
    ),
    Metric(
        "life",
        "ramshelf_cleaned_directories_total",
        "Directories that belonged to no guest and that the agent has removed.",
    ),
    Metric(
        "host",
        "ramshelf_ram_size_bytes",
        "RAM of the host. Absent, as the next three, without a store.",
    ),
    Metric(
        "host",
        "ramshelf_ram_needed_bytes",
        "What has to be in RAM if all guests use all that they have, by what needs it.",
        ("part",),
    ),
    Metric(
        "host",
        "ramshelf_ram_free_bytes",
        "What further guests may need of RAM; a guest with memory in files, or pinned, is refused "
        "where that is less than it needs.",
    ),
    Metric(
        "host",
        "ramshelf_ram_anonymous_alone",
        "Whether guests whose memory is in no file may use up RAM alone; those that have some in "
        "files are refused then.",
    ),
    Metric(
        "host",
        "ramshelf_pressure_waiting_seconds_total",
        "Time in which some tasks waited for the resource (PSI, some). Absent where the kernel "
        "tells none.",
        ("resource",),
    ),
    Metric(
        "host",
        "ramshelf_pressure_stalled_seconds_total",
        "Time in which all tasks waited for the resource (PSI, full). Absent where the kernel tells"
        " none.",
        ("resource",),
    ),
    Metric(
        "host",
        "ramshelf_findings",
        "What is wrong now, by the code of the finding or error; 0 for a finding that is not "
        "there.",
        ("code", "severity"),
    ),
    Metric(
        "placement",
        "ramshelf_placement_up",
        "Whether the last pass over Placement was finished. Absent where Placement is not used.",
    ),
    Metric(
        "placement",
        "ramshelf_placement_owned",
        "Whether the host's resource provider is ramshelf's; 0: it is nova-compute's.",
    ),
    Metric(
        "placement",
        "ramshelf_placement_report_timestamp_seconds",
        "When the last pass over Placement was finished that succeeded; 0 before the first.",
    ),
    Metric(
        "placement",
        "ramshelf_placement_capacity_bytes",
        "The inventory's total, as Placement has it.",
    ),
    Metric("placement", "ramshelf_placement_reserved_bytes", "What the inventory holds back."),
    Metric("placement", "ramshelf_placement_allocated_bytes", "The sum of the allocations there."),
    Metric("agent", "libvirt_up", "Whether libvirt answers the agent."),
    Metric(
        "agent",
        "ramshelf_look_timestamp_seconds",
        "When the agent last looked at guests and store.",
    ),
    Metric("agent", "ramshelf_look_duration_seconds", "How long that took."),
    Metric(
        "agent",
        "ramshelf_check_timestamp_seconds",
        "When the agent last did all of the doctor's checks.",
    ),
    Metric("agent", "ramshelf_check_duration_seconds", "How long that took."),
    Metric(
        "agent",
        "ramshelf_build_info",
        "The versions of ramshelf and of its Python. Always 1.",
        ("version", "python"),
    ),
)

METRICS = {metric.name: metric for metric in _TABLE}
