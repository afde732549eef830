"""A host's resource provider in Nova's ProviderTree, by the store behind the host."""

import os_resource_classes as orc
from nova.compute.provider_tree import ProviderTree

from ramshelf_nova.core.kind import Kind

_TRAITS = frozenset(kind.trait for kind in Kind)


def show_kind(tree: ProviderTree, name: str, kind: Kind | None) -> None:
    """Have the trait of the store's kind, and of no other; of none where there is no store."""
    traits = {kind.trait} if kind else set()
    tree.remove_traits(name, *(_TRAITS - traits))
    tree.add_traits(name, *traits)


def memory_mib(tree: ProviderTree, name: str) -> int | None:
    """The total of MEMORY_MB; None where there is no such inventory."""
    memory = tree.data(name).inventory.get(orc.MEMORY_MB)
    return memory and int(memory["total"])


def bound_memory(tree: ProviderTree, name: str, most_mib: int) -> None:
    """See that the inventory has no more memory than this."""
    inventory = tree.data(name).inventory
    memory = inventory[orc.MEMORY_MB]
    total = min(memory["total"], most_mib)
    reserved = min(memory["reserved"], total)
    inventory[orc.MEMORY_MB] = {**memory, "total": total, "max_unit": total, "reserved": reserved}
    tree.update_inventory(name, inventory)
