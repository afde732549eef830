"""A host on which the doctor finds nothing to complain of; tests change one fact at a time."""

from typing import Any

from ramshelf.core.config import Config
from ramshelf.core.doctor.confinement import Labels
from ramshelf.core.doctor.facts import (
    BootOrder,
    Facts,
    GuestFacts,
    PathDirectory,
    ServiceOrder,
    StoreFacts,
)
from ramshelf.core.domain.memory import Guest, MemoryFile
from ramshelf.core.domain.numa import HostNode, HostNuma
from ramshelf.core.files.mounts import Mount
from ramshelf.core.files.qemuconf import MemoryDirectory
from ramshelf.core.hook.status import HookStatus
from ramshelf.core.host import Account, Device, LibvirtHost, Process, Slice, SwapUse
from ramshelf.core.placement import (
    TRAIT,
    Allocation,
    Claim,
    Comparison,
    Inventory,
    Observed,
    Truth,
    provider_uuid,
)
from ramshelf.core.record import replace
from ramshelf.core.setting import Setting
from ramshelf.core.store.capacity import StoreUsage
from ramshelf.core.store.directory import FileUsage, GuestDirectory
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import Note, NotedFile
from ramshelf.core.units import GIB, MIB

MEMORY_DIR = "/var/lib/libvirt/qemu/ram"
NOVA_CONF = "/etc/nova/nova.conf"
QEMU_UID, QEMU_GID = 64055, 109

GUEST = Guest(
    name="web",
    uuid="6f1c6d2e-6d0c-4f0b-8f4c-0d0f4a3b2c1d",
    domain_id=3,
    virt_type="kvm",
    memory=2 * GIB,
    max_memory=2 * GIB,
    slots=0,
    source="file",
    access="shared",
    allocation="ondemand",
    discard=False,
    hugepages=False,
    locked=False,
    passthrough=False,
    files=(MemoryFile(name="pc.ram", size=2 * GIB),),
)
QEMU = Process(
    pid=4711,
    uid=QEMU_UID,
    name="qemu-system-x86",
    argv=(
        "/usr/bin/qemu-system-x86_64",
        "-object",
        f'{{"qom-type":"memory-backend-file","id":"pc.ram","mem-path":"{MEMORY_DIR}/3-web/pc.ram"}}',
        "-uuid",
        GUEST.uuid,
    ),
    started=2000.0,
    anonymous=60 * MIB,
    swapped=0,
    page_tables=1 * MIB,
    oom_score_adj=0,
)
DAEMON = replace(
    QEMU,
    pid=812,
    uid=0,
    name="libvirtd",
    service="libvirtd",
    argv=(),
    started=1000.0,
    oom_score_adj=-900,
)
RAM_FILE = FileUsage(
    path=f"{MEMORY_DIR}/3-web/pc.ram", apparent=2 * GIB, allocated=512 * MIB, inode=7
)
NOTE = Note(
    name="web",
    uuid=GUEST.uuid,
    domain_id=3,
    directory=f"{MEMORY_DIR}/3-web",
    promised=2 * GIB,
    files=(NotedFile(name="pc.ram", size=2 * GIB, inode=7),),
)
RUNNING = GuestFacts(
    guest=GUEST,
    directory=f"{MEMORY_DIR}/3-web",
    memory_files=(RAM_FILE,),
    promised=2 * GIB,
    process=QEMU,
    labels=Labels(confined=True, uid=QEMU_UID),
)


def guest_directory(*files: FileUsage) -> GuestDirectory:
    """Return the directory that holds these files, as it was found."""
    return GuestDirectory(
        path=files[0].path.rpartition("/")[0],
        device=(0, 45),
        uid=QEMU_UID,
        gid=QEMU_GID,
        files=files,
    )


MOUNT = Mount(
    mount_id=90,
    parent_id=27,
    device=(0, 45),
    root="/",
    mount_point=MEMORY_DIR,
    options=("rw", "noatime"),
    fstype="tmpfs",
    source="ramshelf",
    super_options=("rw", "size=67108860k"),
)
STORE = StoreFacts(
    directory=MemoryDirectory(configured=MEMORY_DIR, path=MEMORY_DIR, explicit=False),
    store=Store(kind=Kind.SWAP, mount=MOUNT, memory_dir=MEMORY_DIR, marked=True),
    usage=StoreUsage(
        kind=Kind.SWAP,
        size=64 * GIB,
        used=512 * MIB,
        swap=64 * GIB,
        beyond_swap=False,
        notes=(NOTE,),
        directories=(guest_directory(RAM_FILE),),
    ),
    io_error="",
    path=(
        PathDirectory(path="/", uid=0, gid=0, mode=0o40755),
        PathDirectory(path="/var/lib/libvirt/qemu", uid=QEMU_UID, gid=QEMU_GID, mode=0o40750),
        PathDirectory(path=MEMORY_DIR, uid=QEMU_UID, gid=QEMU_GID, mode=0o40700),
    ),
    memory_dir_missing=False,
    devices=(Device(name="nvme0n1", rotational=False),),
    swaps=(
        SwapUse(
            path="/dev/nvme0n1p3",
            size=64 * GIB,
            units=frozenset({"dev-nvme0n1p3.swap"}),
            at_boot=True,
        ),
    ),
    boot=BootOrder(
        mounted_by="/etc/fstab",
        requires=frozenset({"dev-nvme0n1p3.swap"}),
        services={"libvirtd.service": ServiceOrder(waits=True, requires=False)},
    ),
    file_system_errors=None,
    stale=(),
)
CONFIG = Config(
    file_backed_memory_mib=64 * 1024,
    ram_allocation_ratio=1.0,
    reserved_host_memory_mib=0,
    files=(NOVA_CONF,),
    nova_files=(NOVA_CONF,),
    settings={
        "libvirt.virt_type": Setting(
            path=NOVA_CONF, section="libvirt", key="virt_type", value="kvm"
        ),
        "DEFAULT.reserved_host_memory_mb": Setting(
            path=NOVA_CONF, section="DEFAULT", key="reserved_host_memory_mb", value="0"
        ),
    },
)
WEB = Claim(uuid=GUEST.uuid, name="web", memory_mib=2048)
HOST = "compute1.example.org"
NOVA_REPORTS = Comparison(
    truth=Truth(
        kind=Kind.SWAP,
        capacity_mib=64 * 1024,
        unowned_mib=0,
        guests=(WEB,),
        nova="nova-compute runs here, process 900",
    ),
    observed=Observed(
        host=HOST,
        provider="1b2d3c4e-8d1e-4f6b-a8f6-7d0c2f9e4b5a",
        generation=7,
        inventory=Inventory(total=64 * 1024, max_unit=64 * 1024),
        traits=frozenset({TRAIT, Kind.SWAP.trait, "HW_CPU_X86_AVX2"}),
        allocations={WEB.uuid: Allocation(2048, 1)},
    ),
    owner=False,
)
RAMSHELF_REPORTS = replace(
    NOVA_REPORTS,
    truth=replace(NOVA_REPORTS.truth, nova=""),
    observed=replace(NOVA_REPORTS.observed, provider=provider_uuid(HOST)),
    owner=True,
)
GOOD = Facts(
    config=CONFIG,
    hypervisor=LibvirtHost(
        uri="qemu:///system",
        libvirt=(9, 0, 0),
        qemu=(7, 2, 11),
        security_models=("apparmor", "dac"),
    ),
    kernel=(6, 18, 44),
    kvm="",
    processes=(DAEMON, QEMU),
    daemon=DAEMON,
    nova_compute=replace(DAEMON, pid=900, name="nova-compute", service="nova-compute"),
    qemu_conf_problem="",
    qemu_conf_changed=500.0,
    nova_changed={NOVA_CONF: 500.0},
    qemu_user=Account(user="libvirt-qemu", uid=QEMU_UID, gids=frozenset({QEMU_GID})),
    store=STORE,
    sysctls={
        "page-cluster": 0,
        "swappiness": 100,
        "dirty_bytes": 0,
        "dirty_ratio": 60,
        "overcommit_memory": 0,
    },
    slices=(
        Slice(name="system.slice", memory_max=None, swap_max=0),
        Slice(name="user.slice", memory_max=None, swap_max=0),
    ),
    machine_slice=Slice(name="machine.slice", memory_max=None, swap_max=None),
    meminfo={"MemTotal": 16 * GIB, "Hugetlb": 0},
    oom_kills=0,
    hook=HookStatus(installed=True, current=True, executable=True, seen=True),
    guests=(RUNNING,),
    placement=NOVA_REPORTS,
    numa=HostNuma(nodes=(HostNode(number=0, ram=8 * GIB), HostNode(number=1, ram=8 * GIB))),
)


def with_config(**changes: Any) -> Facts:
    return replace(GOOD, config=replace(CONFIG, **changes))


def with_store(**changes: Any) -> Facts:
    return replace(GOOD, store=replace(STORE, **changes))


def with_usage(**changes: Any) -> Facts:
    return with_store(usage=replace(STORE.usage, **changes))


def with_device(**changes: Any) -> Facts:
    return with_store(devices=(replace(Device(name="sda", rotational=False), **changes),))


def with_boot(**changes: Any) -> Facts:
    return with_store(boot=replace(STORE.boot, **changes))


def with_sysctl(**changes: Any) -> Facts:
    named = {name.replace("page_cluster", "page-cluster"): value for name, value in changes.items()}
    return replace(GOOD, sysctls={**GOOD.sysctls, **named})


def with_hook(**changes: Any) -> Facts:
    return replace(GOOD, hook=replace(GOOD.hook, **changes))


def with_guest(running: dict[str, Any] | None = None, **changes: Any) -> Facts:
    guest = replace(GUEST, **changes)
    return replace(GOOD, guests=(replace(RUNNING, guest=guest, **(running or {})),))


def without_store(code: str) -> Facts:
    return with_store(store=NoStore(code=code, sentence="There is no store.", hint="Make one."))


def on_disk(fstype: str = "xfs", **changes: Any) -> Facts:
    """Return the same host with a disk store, with these ``changes`` of the store's facts."""
    source = "/dev/nvme0n1p3"
    mount = replace(MOUNT, fstype=fstype, source=source, device=(259, 3), super_options=("rw",))
    file = replace(RAM_FILE, allocated=RAM_FILE.apparent)
    facts = replace(
        STORE,
        store=Store(kind=Kind.DISK, mount=mount, memory_dir=MEMORY_DIR, marked=True),
        usage=StoreUsage(
            kind=Kind.DISK,
            file_system=fstype,
            size=66 * GIB,
            used=2 * GIB,
            swap=0,
            beyond_swap=False,
            notes=(NOTE,),
            directories=(guest_directory(file),),
        ),
        swaps=(),
        boot=BootOrder(
            mounted_by="/etc/fstab",
            requires=frozenset(),
            services={"libvirtd.service": ServiceOrder(waits=True, requires=False)},
        ),
    )
    return replace(
        GOOD, store=replace(facts, **changes), guests=(replace(RUNNING, memory_files=(file,)),)
    )


def reported(
    compared: Comparison = NOVA_REPORTS, *, truth: dict[str, Any] | None = None, **observed: Any
) -> Facts:
    """Return the good host with changes to what Placement says of it, or to the host itself."""
    changed = replace(
        compared,
        truth=replace(compared.truth, **(truth or {})),
        observed=replace(compared.observed, **observed),
    )
    return replace(GOOD, placement=changed)
