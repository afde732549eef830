"""A host's resource provider in Nova's ProviderTree, by the store behind the host."""

import os_resource_classes as orc
from keystoneauth1.exceptions import ClientException
from nova import exception
from nova.compute.provider_tree import ProviderTree
from nova.context import get_admin_context
from nova.scheduler.client.report import SchedulerReportClient
from oslo_log import log as logging

from ramshelf_nova.core.store.kind import Kind

LOG = logging.getLogger(__name__)

_TRAITS = frozenset(kind.trait for kind in Kind)


def show_kind(tree: ProviderTree, name: str, kind: Kind | None) -> None:
    """Give the provider the trait of the store's kind and of no other; none without a store."""
    traits = {kind.trait} if kind else set()
    tree.remove_traits(name, *(_TRAITS - traits))
    tree.add_traits(name, *traits)


def memory_mib(tree: ProviderTree, name: str) -> int | None:
    """Return the total of MEMORY_MB; None where there is no such inventory."""
    memory = tree.data(name).inventory.get(orc.MEMORY_MB)
    return memory and int(memory["total"])


def held_mib(tree: ProviderTree, name: str, placement: SchedulerReportClient) -> int | None:
    """Return the MiB of memory that all consumers hold in Placement; None where not known."""
    try:
        found = placement.get_allocations_for_resource_provider(
            get_admin_context(), tree.data(name).uuid
        )
    except (exception.NovaException, ClientException) as error:
        LOG.warning("What servers hold of %s in Placement is not known: %s", name, error)
        return None
    return sum(int(held["resources"].get(orc.MEMORY_MB, 0)) for held in found.allocations.values())


def bound_memory(tree: ProviderTree, name: str, most_mib: int) -> None:
    """See that the inventory has no more memory than this."""
    inventory = tree.data(name).inventory
    memory = inventory[orc.MEMORY_MB]
    total = min(memory["total"], most_mib)
    reserved = min(memory["reserved"], total)
    inventory[orc.MEMORY_MB] = {**memory, "total": total, "max_unit": total, "reserved": reserved}
    tree.update_inventory(name, inventory)
