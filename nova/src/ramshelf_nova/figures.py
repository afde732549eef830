"""Figures of a host, in the stats of its compute node: what the driver reports and the weigher reads.

The driver's get_available_resource gives them under 'stats'; Nova keeps them as text with the
compute node, and the scheduler finds them in HostState.stats. All are whole MiB. A figure that is
not known is left out.
"""

STORE_TOTAL_MIB = "ramshelf_store_total_mib"
"""Guest memory that the store can hold."""

STORE_PROMISED_MIB = "ramshelf_store_promised_mib"
"""What of it the store has promised: the sizes of all memory files, used or not."""

RAM_MIB = "ramshelf_ram_mib"
"""RAM that guests' memory may have: the host's, less what it keeps for itself."""

RESIDENT_MIB = "ramshelf_resident_mib"
"""What of guests' memory is in RAM."""
