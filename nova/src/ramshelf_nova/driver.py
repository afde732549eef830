"""Nova's libvirt driver for a host whose guests' memory is on ramshelf's store.

It is set with ``compute_driver = ramshelf.FileBackedLibvirtDriver``. With ``[libvirt]
file_backed_memory`` not set it is LibvirtDriver. One private method of LibvirtDriver is overridden;
the hook does all else there is to do, whoever starts a guest.
"""

from typing import Any

import libvirt
from lxml import etree
from nova import exception, version
from nova.compute.provider_tree import ProviderTree
from nova.context import RequestContext
from nova.objects.instance import Instance
from nova.objects.migrate_data import LibvirtLiveMigrateData
from nova.virt.libvirt import config as vconfig
from nova.virt.libvirt import driver
from nova.virt.virtapi import VirtAPI
from oslo_log import log as logging

from ramshelf_nova import figures, provider
from ramshelf_nova.compatibility import TESTED, misfits, missing
from ramshelf_nova.conf import CONF
from ramshelf_nova.core.migration.answer import HostAnswer
from ramshelf_nova.hook import Hook, refusal, trouble
from ramshelf_nova.service import ComputeService

LOG = logging.getLogger(__name__)


class FileBackedLibvirtDriver(driver.LibvirtDriver):
    """Nova's libvirt driver with memory that is allocated on demand and reserved by the hook.

    The memory is discarded where that writes nothing. While the hook does not answer or there is no
    store, the compute service is disabled; guests that run are served as ever.
    """

    def __init__(self, virtapi: VirtAPI, read_only: bool = False) -> None:  # noqa: FBT001, FBT002
        super().__init__(virtapi, read_only)
        self._hook = Hook(self._host)
        self._service = ComputeService(self._hook)

    def init_host(self, host: str) -> None:
        """Do Nova's own checks, and check that the driver fits this Nova.

        Raises InternalError.
        """
        found = [
            *misfits(FileBackedLibvirtDriver, driver.LibvirtDriver),
            *missing(
                vconfig.LibvirtConfigGuestMemoryBacking(),
                "filesource",
                "allocateimmediate",
                "discard",
            ),
        ]
        here, tested = version.version_string(), ", ".join(TESTED)
        if found:
            raise exception.InternalError(
                f"FileBackedLibvirtDriver, tested with Nova {tested}, does not fit Nova {here}: "
                f"{'; '.join(found)}. Use a ramshelf-nova for it, or libvirt.LibvirtDriver."
            )
        LOG.info("FileBackedLibvirtDriver, tested with Nova %s, on Nova %s", tested, here)
        super().init_host(host)

    def spawn(  # noqa: PLR0917 - Nova's
        self,
        context: RequestContext,
        instance: Instance,
        image_meta: Any,
        injected_files: Any,
        admin_password: Any,
        allocations: dict[str, Any],
        network_info: Any = None,
        block_device_info: Any = None,
        power_on: bool = True,  # noqa: FBT001, FBT002 - Nova's
        accel_info: Any = None,
    ) -> None:
        """Spawn as Nova does; raise ComputeResourcesUnavailable where the hook refuses the guest.

        The build goes to another host, as it would with Nova's own error. But a server's fault has
        room for 255 characters, most of which libvirt's words around the hook's would take.
        """
        try:
            super().spawn(
                context,
                instance,
                image_meta,
                injected_files,
                admin_password,
                allocations,
                network_info,
                block_device_info,
                power_on,
                accel_info,
            )
        except libvirt.libvirtError as error:
            reason = refusal(error)
            if reason is None:
                raise
            raise exception.ComputeResourcesUnavailable(reason=reason) from error

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """Return what Nova's does, with the weigher's figures.

        Nova calls this every minute, so it is here that the service follows the host.
        """
        resources: dict[str, Any] = super().get_available_resource(nodename)
        if _file_backed():
            answer = self._service.follow()
            if answer is not None:
                resources.setdefault("stats", {}).update(_figures(answer))
        return resources

    def update_provider_tree(
        self, provider_tree: ProviderTree, nodename: str, allocations: dict[str, Any] | None = None
    ) -> None:
        """Update the tree as Nova does, with the store's kind as a trait.

        There is no more memory than the store can hold, or than its servers hold.
        """
        before = provider.memory_mib(provider_tree, nodename)
        super().update_provider_tree(provider_tree, nodename, allocations)
        answer = self._hook.answer() if _file_backed() else None
        provider.show_kind(provider_tree, nodename, answer.kind if answer else None)
        if _file_backed():
            # Where it is not known what the store can hold, it is no more than before.
            most = (answer.capacity_mib if answer else 0) or before
            if most and most < (provider.memory_mib(provider_tree, nodename) or 0):
                # Nova can move no server away while less is reported than servers hold (before
                # 2025.2; see ramshelf's core/placement.wanted_inventory).
                held = provider.held_mib(provider_tree, nodename, self.virtapi.reportclient)
                least = (before or 0) if held is None else held
                provider.bound_memory(provider_tree, nodename, max(most, least))

    def check_can_live_migrate_destination(  # noqa: PLR0917 - Nova's
        self,
        context: RequestContext,
        instance: Instance,
        src_compute_info: dict[str, Any],
        dst_compute_info: dict[str, Any],
        block_migration: bool | None = False,  # noqa: FBT001, FBT002 - Nova's
        disk_over_commit: bool | None = False,  # noqa: FBT001, FBT002 - Nova's
    ) -> LibvirtLiveMigrateData:
        """Check as Nova does, and that the store here can take the guest.

        Raises MigrationPreCheckError.
        """
        if _file_backed():
            answer = self._hook.answer(fresh=True)
            reason = trouble(answer)
            if answer and answer.kind and instance.flavor.memory_mb > answer.free_mib:
                reason = (
                    f"it needs {instance.flavor.memory_mb} MiB of file-backed memory, and "
                    f"{answer.free_mib} MiB are free on the store"
                )
            if reason:
                raise exception.MigrationPreCheckError(
                    reason=f"{CONF.host} cannot take the server: {reason}"
                )
        return super().check_can_live_migrate_destination(
            context, instance, src_compute_info, dst_compute_info, block_migration, disk_over_commit
        )

    def check_can_live_migrate_source(
        self,
        context: RequestContext,
        instance: Instance,
        dest_check_data: LibvirtLiveMigrateData,
        block_device_info: dict[str, Any] | None = None,
    ) -> LibvirtLiveMigrateData:
        """Check as Nova does, and that the guest's memory is backed as the destination wants it.

        libvirt cannot change that on the way. Raises MigrationPreCheckError.
        """
        guest = etree.fromstring(self._host.get_guest(instance).get_xml_desc())
        here = guest.find("memoryBacking/source[@type='file']") is not None
        there = (
            "dst_wants_file_backed_memory" in dest_check_data
            and dest_check_data.dst_wants_file_backed_memory
        )
        if here != there:
            words = {True: "file-backed", False: "not file-backed"}
            raise exception.MigrationPreCheckError(
                reason=(
                    f"the server's memory is {words[here]}, and on the destination it would be "
                    f"{words[there]}: libvirt cannot change that while it runs; migrate it cold, "
                    "or resize it"
                )
            )
        return super().check_can_live_migrate_source(
            context, instance, dest_check_data, block_device_info
        )

    def _get_guest_memory_backing_config(
        self, inst_topology: Any, numatune: Any, flavor: Any, image_meta: Any
    ) -> vconfig.LibvirtConfigGuestMemoryBacking | None:
        """Return Nova's configuration, allocated on demand where the hook reserves the memory.

        Elsewhere QEMU allocates it, as Nova has it.
        """
        backing = super()._get_guest_memory_backing_config(
            inst_topology, numatune, flavor, image_meta
        )
        if backing is not None and backing.filesource:
            answer = self._hook.answer()
            reserved = answer is not None and answer.kind is not None
            backing.allocateimmediate = not reserved
            backing.discard = answer is not None and answer.discards_freely
        return backing


def _file_backed() -> bool:
    return bool(CONF.libvirt.file_backed_memory > 0)


def _figures(answer: HostAnswer) -> dict[str, int]:
    return {
        figures.STORE_TOTAL_MIB: min(CONF.libvirt.file_backed_memory, answer.capacity_mib),
        figures.STORE_PROMISED_MIB: answer.promised_mib,
        figures.RAM_MIB: answer.ram_mib,
        figures.RESIDENT_MIB: answer.resident_mib,
    }
