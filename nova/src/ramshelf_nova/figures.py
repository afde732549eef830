"""A host's figures in the stats of its compute node: the driver's reports to the weigher.

The driver's get_available_resource gives them under 'stats'; Nova keeps them as text with the
compute node, and the scheduler finds them in HostState.stats. All are whole MiB. A figure that is
not known is left out.
"""

STORE_TOTAL_MIB = "ramshelf_store_total_mib"
"""The guest memory that the store can hold."""

STORE_PROMISED_MIB = "ramshelf_store_promised_mib"
"""What the store has promised of that: the sizes of all memory files, used or not."""

RAM_MIB = "ramshelf_ram_mib"
"""The RAM that guests' memory may have: the host's, less what it keeps for itself."""

RESIDENT_MIB = "ramshelf_resident_mib"
"""The part of guests' memory that is in RAM."""
