"""Every code that the doctor can report: how severe it is, what it means, what to do.

docs/reference/findings.md is printed from this table. Codes are stable: scripts rely on them.
"""

from dataclasses import dataclass

from ramshelf.core.errors import ENLARGE
from ramshelf.core.findings import Finding, Severity
from ramshelf.core.host import Unknown
from ramshelf.core.record import replace

GROUPS = {
    "versions": "libvirt, QEMU and the kernel",
    "host": "The host's virtualization",
    "config": "The configuration",
    "store": "The store and what lies below it",
    "hook": "libvirt's hook",
    "guest": "Running guests",
    "ram": "The RAM budget",
    "numa": "NUMA nodes",
    "placement": "What Placement is told of this host",
    "upgrade": "An upgrade or a rollback of ramshelf",
}


@dataclass(frozen=True)
class Rule:
    """One code of the table; ``milder`` is the severity in the cases that ``meaning`` names."""

    code: str
    severity: Severity
    meaning: str
    hint: str = ""
    milder: Severity | None = None


_OK, _INFO, _WARNING, _FAILURE = Severity.OK, Severity.INFO, Severity.WARNING, Severity.FAILURE
_AS_ROOT = "Run the doctor as root."
_TABLE = (
    Rule(
        "versions.ok",
        _OK,
        "libvirt and QEMU are new enough for file-backed memory.",
    ),
    Rule(
        "versions.libvirt-unreachable",
        _FAILURE,
        "libvirt (libvirtd, or virtqemud where it is modular) cannot be reached. A warning where "
        "this user may not.",
        "Start it: systemctl start libvirtd (or virtqemud.socket); as an ordinary user join the "
        "group libvirt.",
        _WARNING,
    ),
    Rule(
        "versions.libvirt-old",
        _FAILURE,
        "libvirt is older than 4.0.0, which brought file-backed memory.",
        "Upgrade libvirt.",
    ),
    Rule(
        "versions.qemu-old",
        _FAILURE,
        "QEMU is older than 2.6.0.",
        "Upgrade QEMU.",
    ),
    Rule(
        "versions.qemu-unknown",
        _WARNING,
        "libvirt does not tell which QEMU it runs.",
        "Install QEMU for this host's architecture (qemu-system-x86, qemu-kvm).",
    ),
    Rule(
        "versions.no-discard",
        _INFO,
        "libvirt is older than 4.4.0 or QEMU older than 2.10.0: guests start without discard.",
        "Nothing needs to be done: memory files are removed without it.",
    ),
    Rule(
        "versions.kernel-unknown",
        _WARNING,
        "The kernel's version cannot be read, so it is taken for an old one.",
    ),
    Rule(
        "host.ok",
        _OK,
        "The host can run guests of the configured virt_type.",
    ),
    Rule(
        "host.virt-type",
        _FAILURE,
        "[libvirt] virt_type is neither kvm nor qemu; Nova refuses file-backed memory with anything"
        " else.",
        "Set [libvirt] virt_type = kvm.",
    ),
    Rule(
        "host.kvm",
        _FAILURE,
        "virt_type is kvm and /dev/kvm cannot be used. A warning where no file sets virt_type.",
        "Enable virtualization in the firmware and load kvm_intel or kvm_amd; or set virt_type = "
        "qemu (slow).",
        _WARNING,
    ),
    Rule(
        "host.kvm-unknown",
        _WARNING,
        "Whether /dev/kvm can be used could not be tried.",
        f"{_AS_ROOT} Where root may not open it either, a unit's DevicePolicy= or a container keeps"
        " it away.",
    ),
    Rule(
        "host.unconfined",
        _WARNING,
        "libvirt has neither AppArmor nor SELinux as its security driver, and guests do not run as "
        "users of their own: a QEMU that a guest has taken over can read, change and kill the "
        "other guests, and fill the store.",
        "Let libvirt confine guests: AppArmor or SELinux switched on in the kernel, and no"
        ' security_driver = "none" in qemu.conf; or give each guest a user of its own by a seclabel'
        " of model dac. ramshelf's documentation has a page on security.",
    ),
    Rule(
        "host.confinement-unknown",
        _WARNING,
        "libvirt's capabilities name no security driver.",
        "Look for secmodel in the output of virsh capabilities.",
    ),
    Rule(
        "config.ok",
        _OK,
        "The configuration is consistent with file-backed memory.",
    ),
    Rule(
        "config.missing",
        _FAILURE,
        "A configuration file or directory that was named is not there. The other checks went on "
        "with the defaults.",
        "Check what --config-file and --config-dir name.",
    ),
    Rule(
        "config.unreadable",
        _FAILURE,
        "A configuration file cannot be read.",
        "See who may read it: nova.conf is usually readable for root and nova only.",
    ),
    Rule(
        "config.malformed",
        _FAILURE,
        "A configuration file is not in nova.conf's format (or qemu.conf not in libvirt's), or is"
        " no text.",
        "The format is that of nova.conf: [SECTION] lines and KEY = VALUE lines.",
    ),
    Rule(
        "config.value",
        _FAILURE,
        "An option has a value of the wrong type, or one that is out of range.",
        "Correct the value in the file that the message names.",
    ),
    Rule(
        "config.reference",
        _FAILURE,
        "An option refers by $NAME to one that no file sets.",
        "Set that option, or this one without $.",
    ),
    Rule(
        "config.unknown-key",
        _FAILURE,
        "[ramshelf] has an option that does not exist.",
        "Correct the option's name in the file that the message names.",
    ),
    Rule(
        "config.off",
        _WARNING,
        "[libvirt] file_backed_memory is 0, or a nova.conf does not set it: as in Nova, no guest is"
        " backed by files.",
        "Set [libvirt] file_backed_memory to the capacity_mib of 'ramshelf capacity --json'.",
    ),
    Rule(
        "config.allocation-ratio",
        _FAILURE,
        "[DEFAULT] ram_allocation_ratio is not 1.0 (unset counts as not 1.0). nova-compute refuses "
        "to start with file_backed_memory. Only where a Nova file is read.",
        "Set [DEFAULT] ram_allocation_ratio = 1.0 here, and on every host aggregate of this host.",
    ),
    Rule(
        "config.reserved-exceeds",
        _FAILURE,
        "[DEFAULT] reserved_host_memory_mb is not smaller than file_backed_memory.",
        "Set [DEFAULT] reserved_host_memory_mb = 0: the store's capacity is not the host's RAM.",
    ),
    Rule(
        "config.reserved",
        _WARNING,
        "[DEFAULT] reserved_host_memory_mb takes capacity from the store, for nothing (Nova's "
        "default: 512).",
        "Set [DEFAULT] reserved_host_memory_mb = 0.",
    ),
    Rule(
        "config.exceeds-store",
        _FAILURE,
        "[libvirt] file_backed_memory is larger than what the store can hold: Placement would "
        "promise memory that is not there.",
        f"Lower file_backed_memory to what 'ramshelf capacity' shows, or {ENLARGE}. Where "
        "servers hold more than that, move some away first (see placement.exceeds-store).",
    ),
    Rule(
        "config.below-promised",
        _WARNING,
        "[libvirt] file_backed_memory is less than what guests on the store were promised, as when "
        "it was lowered while they ran. No guest is started until enough of them are gone.",
        "Raise it again, or stop guests; see 'ramshelf capacity'.",
    ),
    Rule(
        "config.below-store",
        _INFO,
        "[libvirt] file_backed_memory leaves more than a tenth of the store unused.",
        "Raise file_backed_memory to what 'ramshelf capacity' shows, or leave it.",
    ),
    Rule(
        "config.contradiction",
        _WARNING,
        "Two places set the same key differently; the later one wins.",
        "Set it in one place.",
    ),
    Rule(
        "config.nova-changed",
        _WARNING,
        "A file that nova-compute reads was changed after nova-compute started: it works with the "
        "old one.",
        "Restart nova-compute.",
    ),
    Rule(
        "config.nova-unknown",
        _WARNING,
        "Whether nova-compute runs, and since when, could not be found out.",
        _AS_ROOT,
    ),
    Rule(
        "store.ok",
        _OK,
        "The memory backing directory lies on a mounted store.",
    ),
    Rule(
        "store.mount-unknown",
        _WARNING,
        "What lies at the memory backing directory could not be found out.",
        _AS_ROOT,
    ),
    Rule(
        "store.not-mounted",
        _FAILURE,
        "fstab names a store that is not mounted, or something else is in its place: guests would "
        "fill the file system below. Something else is also a tmpfs with noswap where fstab has "
        "kind swap.",
        "Mount it: mount MOUNT-POINT. Until then the hook refuses guests there.",
    ),
    Rule(
        "store.root-file-system",
        _FAILURE,
        "The memory backing directory is a plain directory of the system's own file system.",
        "Make a store: ramshelf store create --help.",
    ),
    Rule(
        "store.symbolic-link",
        _FAILURE,
        "The memory backing directory lies behind a symbolic link that others than root could have "
        "made, as in libvirt's /var/lib/libvirt/qemu, which is QEMU's user's: it is not followed.",
        "Make it a directory and mount the store there (a bind mount will do), or have "
        "memory_backing_dir in qemu.conf name what the link leads to, and restart libvirt.",
    ),
    Rule(
        "store.unsupported",
        _FAILURE,
        "The file system cannot be a store. btrfs copies on write: a reserved file can still run "
        "out of space.",
        "Use tmpfs over swap, xfs or ext4.",
    ),
    Rule(
        "store.read-only",
        _FAILURE,
        "The store is mounted read-only; a file system does this to itself after an error.",
        "Look at the kernel's log, check the file system and the device, mount it again.",
    ),
    Rule(
        "store.error",
        _FAILURE,
        "The store answers with an error, as a file system does after it has shut down.",
        "Look at the kernel's log; stop the guests before anything else is tried.",
    ),
    Rule(
        "store.usage-unknown",
        _WARNING,
        "What the store holds and has promised could not be found out.",
        _AS_ROOT,
    ),
    Rule(
        "store.file-system-errors",
        _FAILURE,
        "ext4 has counted errors on the store: guest memory may have been lost.",
        "Stop the guests, run e2fsck, look at the device.",
    ),
    Rule(
        "store.write-errors",
        _FAILURE,
        "The kernel's log says that writes to a disk store have failed since it was mounted: what "
        "guests had written to their memory is lost as soon as the kernel needs its RAM, and they "
        "are not told. The guests that the log names have a finding of their own "
        "(store.memory-lost); it keeps most of these messages back, so others that ran then may "
        "have lost memory too. Guests that started later have not, but the device can fail them "
        "next.",
        "Start no more guests here, and look at the kernel's log. Where it says that no space was "
        "found, the device is sound and room is missing (store.extents). Else look at the device "
        "(smartctl), and make the store anew on a sound one. This is said until the store is "
        "mounted again.",
    ),
    Rule(
        "store.memory-lost",
        _FAILURE,
        "The kernel could not write memory of a running guest to the store (store.write-errors). "
        "The guest reads something else there as soon as the kernel has needed the RAM.",
        "Tell its owner. Do not save it, snapshot its memory or migrate it live: that takes the "
        "damage along. End it ('virsh destroy': an orderly shutdown can write damaged data to its "
        "disks), check its disks, and start it on a sound store.",
    ),
    Rule(
        "store.write-errors-unknown",
        _INFO,
        "The kernel's log cannot be read, or has forgotten what came soon after the store was "
        "mounted, so lost writes would not be noticed.",
        f"{_AS_ROOT} Containers often have no /dev/kmsg: look at the host's own log there. Where "
        "the kernel has forgotten, look at 'journalctl -k -b'; an agent that runs all the time "
        "forgets nothing.",
    ),
    Rule(
        "store.device-errors",
        _WARNING,
        "The store's device has counted failed commands, more than one in 10,000.",
        "Look at the kernel's log and at smartctl.",
    ),
    Rule(
        "store.qemu-conf-unknown",
        _WARNING,
        "qemu.conf cannot be read; libvirt's default memory_backing_dir was looked at.",
        _AS_ROOT,
    ),
    Rule(
        "store.qemu-conf-changed",
        _WARNING,
        "qemu.conf was changed after libvirt's daemon started. SIGHUP does not read it again: the "
        "daemon works with the old one.",
        "Restart it: systemctl restart libvirtd (or virtqemud); running guests go on.",
    ),
    Rule(
        "store.daemon-unknown",
        _WARNING,
        "Since when libvirt's daemon runs could not be found out, nor whether qemu.conf is newer.",
        _AS_ROOT,
    ),
    Rule(
        "store.layout",
        _INFO,
        "memory_backing_dir is set in qemu.conf (even if to the default): libvirt appends "
        "libvirt/qemu to it.",
        "Nothing needs to be done; take the path that is shown for the guests' directories.",
    ),
    Rule(
        "store.no-directory",
        _WARNING,
        "The memory backing directory does not exist; libvirt makes it when its daemon starts.",
        "Restart libvirtd (or virtqemud).",
    ),
    Rule(
        "store.owner",
        _FAILURE,
        "The user that QEMU runs as cannot reach its files below the memory backing directory.",
        "Give QEMU's user the directory, and the search permission (x) on those above it.",
    ),
    Rule(
        "store.readable",
        _WARNING,
        "Other users can list or enter and read the memory backing directory.",
        "Take their read permission: chmod o-rw DIRECTORY.",
    ),
    Rule(
        "store.owner-unknown",
        _WARNING,
        "Who may use the memory backing directory could not be found out.",
        _AS_ROOT,
    ),
    Rule(
        "store.beyond-promise",
        _WARNING,
        "A guest's directory on the store holds more than the guest is promised: its QEMU, or "
        "another process of QEMU's user, writes there. What it holds is taken off what can be "
        "promised; a tmpfs has no quota for a directory, so it is noticed and not prevented.",
        "See what lies in the directory, and which process writes it; confine guests (AppArmor, "
        "SELinux). On ext4 it may also be how the guest writes to its memory, which takes more "
        "records than its share; nothing is found in the directory: move it to a store on xfs or "
        "swap.",
    ),
    Rule(
        "store.extents",
        _FAILURE,
        "Less than a quarter is left of what a disk store's file system may need to record which "
        "pages of guests' memory were written. When that is gone the kernel loses pages, and tells "
        "nobody.",
        "Stop or migrate a guest, or remove what else lies on the store ('ramshelf capacity' shows "
        f"who holds what); then {ENLARGE}.",
    ),
    Rule(
        "store.inodes",
        _FAILURE,
        "The store has space left and hardly an inode: libvirt cannot make the next guest's "
        "directory. A guest takes three, and one more for each further NUMA cell and memory "
        "device. Many small guests take them, or somebody who makes files without end in a guest's "
        "directory.",
        "See what lies in the directory that is named, or else on the store, and which process "
        "writes it; confine guests (AppArmor, SELinux).",
    ),
    Rule(
        "store.overpromised",
        _FAILURE,
        "Guests were promised more than the store can hold. On a tmpfs guests are killed when they "
        "use it; on ext4 and xfs pages of theirs can be lost without a word.",
        f"Stop a guest, or {ENLARGE}; 'ramshelf capacity' shows who holds what.",
    ),
    Rule(
        "store.resize-unfinished",
        _WARNING,
        "'ramshelf store resize' was cut off, or somebody has grown the store by hand: /etc/fstab, "
        "the store's file or device and its file system do not have the same size. Guests are "
        "promised what the file system has.",
        "Finish it: ramshelf store resize --size SIZE, with the size that is named.",
    ),
    Rule(
        "store.promised-before",
        _WARNING,
        "Guests were promised more before an upgrade than the store's capacity is now, and keep it:"
        " each may start again with as much, until all that is promised fits. The file system may "
        "find no room for the records of all their pages, and then loses pages.",
        f"Move one of these guests to another host, or {ENLARGE}; 'ramshelf capacity' shows who "
        "holds what. One that is not to start again: 'virsh undefine' it.",
    ),
    Rule(
        "store.not-again",
        _WARNING,
        "If all guests that hold memory on the store started anew, as after a reboot, some would be"
        " refused: those that start last. The names are by the order in which the guests were "
        "started this time.",
        f"Move a guest to another host before the reboot, or {ENLARGE}. Right after an upgrade: "
        "'ramshelf hook install', while these guests run.",
    ),
    Rule(
        "store.rotational",
        _WARNING,
        "A rotating disk lies below the store; file-backed memory works best with very fast block "
        "devices.",
        "Put the store on NVMe.",
    ),
    Rule(
        "store.network",
        _WARNING,
        "A network device lies below the store: its latency becomes the guests' memory latency, and"
        " a lost connection loses memory.",
        "Put the store on local NVMe.",
    ),
    Rule(
        "store.thin",
        _FAILURE,
        "What lies below the store is thin or sparse: when it runs out of space, guest memory is "
        "corrupted silently (disk kinds) or guests are killed (swap).",
        "Make the store on a fully allocated file or device.",
    ),
    Rule(
        "store.thin-unknown",
        _WARNING,
        "Whether space below the store is guaranteed could not be found out.",
        _AS_ROOT,
    ),
    Rule(
        "store.device-unknown",
        _WARNING,
        "The devices below the store could not be found out.",
        _AS_ROOT,
    ),
    Rule(
        "store.in-ram",
        _FAILURE,
        "Swap of the store's, or what the store lies on, is RAM: zram, a RAM disk, a file on a "
        "tmpfs. Such swap is not counted as room, and what goes there stays in RAM.",
        "Switch it off (swapoff), and keep zram from coming back; put the store's swap on an NVMe "
        "device or file.",
    ),
    Rule(
        "store.buffered-loop",
        _WARNING,
        "The store's loop device does not use direct I/O: guest memory is cached twice.",
        "losetup --direct-io=on DEVICE, or make the store with 'ramshelf store create'.",
    ),
    Rule(
        "store.swap-on-loop",
        _WARNING,
        "The store's swap goes through a loop device, which can deadlock when memory is short.",
        "Use the swap file itself.",
    ),
    Rule(
        "store.no-boot",
        _WARNING,
        "Neither fstab nor a mount unit mounts the store: after a reboot guests find a plain "
        "directory.",
        "Add it to /etc/fstab, or make it with 'ramshelf store create'.",
    ),
    Rule(
        "store.swap-no-boot",
        _WARNING,
        "Neither fstab nor a swap unit activates the store's swap at boot.",
        "Add it to /etc/fstab.",
    ),
    Rule(
        "store.swap-order",
        _WARNING,
        "The store's mount does not require its swap: when the swap fails at boot, the store is "
        "mounted without it.",
        "Add x-systemd.requires=SWAP-UNIT to the store's options in /etc/fstab.",
    ),
    Rule(
        "store.loop-order",
        _WARNING,
        "The store lies on a loop device, and its mount does not require a unit that attaches it at"
        " boot.",
        "Add x-systemd.requires=UNIT to the store's options in /etc/fstab, or make the store with "
        "'ramshelf store create'.",
    ),
    Rule(
        "store.libvirt-order",
        _WARNING,
        "A service that starts guests does not wait for the store at boot.",
        "Add a drop-in with [Unit] Wants=MOUNT-UNIT and After=MOUNT-UNIT to the service.",
    ),
    Rule(
        "store.libvirt-requires",
        _WARNING,
        "libvirt does not start at boot when the store cannot be mounted.",
        "Give 'ramshelf store create' its options again, with the size of now; in a drop-in of "
        "your own, write Wants=MOUNT-UNIT and After=MOUNT-UNIT in place of RequiresMountsFor=.",
    ),
    Rule(
        "store.boot-unknown",
        _WARNING,
        "fstab or the units could not be read: what happens at boot is not known.",
        _AS_ROOT,
    ),
    Rule(
        "store.no-swap",
        _FAILURE,
        "The store is a tmpfs over swap, and no swap on a disk is active: all of it must fit in "
        "RAM.",
        "Activate the swap: swapon -a. Swap of zram does not count.",
    ),
    Rule(
        "store.beyond-swap",
        _WARNING,
        "The store is larger than the swap behind it, as its fstab entry says it may be: guests "
        "that use all their memory at once can be killed.",
        "Add swap, or make the store as large as its swap: 'ramshelf store remove', then 'ramshelf "
        "store create' without --tmpfs-size.",
    ),
    Rule(
        "store.larger-than-swap",
        _WARNING,
        "The tmpfs is larger than the swap behind it; capacity is what the swap holds.",
        "mount -o remount,size=SWAP-SIZE the store, and set it in /etc/fstab.",
    ),
    Rule(
        "store.exceeds-memory",
        _FAILURE,
        "The tmpfs is larger than swap and RAM together, after what the host needs itself.",
        "Make the store smaller ('ramshelf store remove', then 'ramshelf store create'), or add "
        "swap.",
    ),
    Rule(
        "store.page-cluster",
        _WARNING,
        "vm.page-cluster is not 0: each page that a guest misses reads its neighbours from swap "
        "too, which costs more than it brings on a device without seeks.",
        "sysctl vm.page-cluster=0, and in /etc/sysctl.d.",
    ),
    Rule(
        "store.swappiness",
        _WARNING,
        "vm.swappiness is below the kernel's default of 60: cold guest memory stays in RAM while "
        "the page cache is emptied.",
        "sysctl vm.swappiness=100, and in /etc/sysctl.d.",
    ),
    Rule(
        "store.swap-shared",
        _WARNING,
        "Processes other than QEMU have memory in the store's swap: it can hold fewer guests.",
        "Keep them out: MemorySwapMax=0 for system.slice and user.slice.",
    ),
    Rule(
        "store.swap-shared-unknown",
        _WARNING,
        "Who else uses the store's swap could not be found out.",
        _AS_ROOT,
    ),
    Rule(
        "store.services-may-swap",
        _WARNING,
        "Host services may be swapped out, into the guests' place.",
        "systemctl set-property system.slice MemorySwapMax=0 (and user.slice).",
    ),
    Rule(
        "store.services-unlimited",
        _WARNING,
        "There is no cgroup v2 with a memory controller here: host services may be swapped out, "
        "into the guests' place, and nothing can prevent it.",
        "Boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1).",
    ),
    Rule(
        "store.dirty-throttling",
        _WARNING,
        "vm.dirty_ratio or vm.dirty_bytes is low for a store on a disk file system: guests that "
        "dirty more memory than that are throttled to the disk's speed.",
        "sysctl vm.dirty_ratio=60, and in /etc/sysctl.d.",
    ),
    Rule(
        "store.sysctl-unknown",
        _WARNING,
        "A kernel setting that matters for the store could not be read.",
    ),
    Rule(
        "store.punch-flushes",
        _INFO,
        "On this file system punching holes writes them back first: ramshelf leaves discard out, so"
        " that the end of a guest writes nothing.",
        "Nothing needs to be done. ext4 on Linux 6.14 and tmpfs do not have this.",
    ),
    Rule(
        "store.stale",
        _WARNING,
        "Directories on the store belong to no running guest, as after a power loss.",
        "ramshelf store clean",
    ),
    Rule(
        "store.stale-unknown",
        _WARNING,
        "Whether directories of past guests are left could not be found out.",
        _AS_ROOT,
    ),
    Rule(
        "hook.ok",
        _OK,
        "libvirt's hook is installed, current, and called.",
    ),
    Rule(
        "hook.missing",
        _FAILURE,
        "libvirt's hook is not installed: nothing keeps guests within the store.",
        "ramshelf hook install",
    ),
    Rule(
        "hook.foreign",
        _FAILURE,
        "Something that is not ramshelf's has the place of libvirt's hook: nothing keeps guests "
        "within the store.",
        "Rename it (libvirt calls every executable in that directory, whatever its name); then "
        "ramshelf hook install.",
    ),
    Rule(
        "hook.broken",
        _FAILURE,
        "libvirt's hook does not work. It refuses guests whose memory is in files or pinned, and "
        "lets all others pass.",
        "ramshelf hook install; until it works, ramshelf hook bypass --for 30min lets guests pass.",
    ),
    Rule(
        "hook.other-view",
        _FAILURE,
        "libvirt's hook, which runs where libvirt runs, sees another store or configuration than "
        "this command does, as in a container that lacks a volume. It goes by what it sees.",
        "Have libvirt's container see the store and the configuration files where the host has "
        "them, and start it again. ramshelf's documentation has a page on Nova in containers.",
    ),
    Rule(
        "hook.bypassed",
        _WARNING,
        "libvirt's hook is bypassed for a time: guests pass that it refuses, or whose memory it "
        "cannot reserve.",
        "ramshelf hook bypass --end, as soon as the reason for it is gone.",
    ),
    Rule(
        "hook.not-executable",
        _FAILURE,
        "libvirt's hook is not executable, so libvirt passes it over.",
        "ramshelf hook install",
    ),
    Rule(
        "hook.unseen",
        _FAILURE,
        "The running libvirt daemon does not call the hook: it was installed after the daemon "
        "started.",
        "ramshelf hook install (it makes the daemon look again), or systemctl reload libvirtd (or "
        "virtqemud).",
    ),
    Rule(
        "hook.outdated",
        _WARNING,
        "libvirt's hook is not what this version of ramshelf would install.",
        "ramshelf hook install",
    ),
    Rule(
        "hook.seen-unknown",
        _WARNING,
        "Whether the running libvirt daemon calls the hook could not be found out.",
        f"{_AS_ROOT} libvirt has to run for that; 'ramshelf hook install' asks it, too.",
    ),
    Rule(
        "hook.status-unknown",
        _WARNING,
        "Whether libvirt's hook is installed could not be found out.",
        _AS_ROOT,
    ),
    Rule(
        "guest.ok",
        _OK,
        "Every running guest's memory is reserved on the store.",
    ),
    Rule(
        "guest.list-unknown",
        _WARNING,
        "The running guests could not be listed.",
    ),
    Rule(
        "guest.huge-pages",
        _WARNING,
        "A running guest uses huge pages, which are RAM and not on the store.",
        "Remove hugepages (in Nova: hw:mem_page_size) and start it again.",
    ),
    Rule(
        "guest.locked",
        _WARNING,
        "A running guest locks its memory: all of it stays in RAM.",
        "Remove <locked/> from its memoryBacking and start it again.",
    ),
    Rule(
        "guest.hot-pinned",
        _WARNING,
        "A running guest got a device while it ran (VFIO, vDPA) that keeps all its memory in RAM. "
        "Hot-plugging asks no hook: nobody has seen to it that RAM suffices. It counts when "
        "further guests start.",
        "See by 'ramshelf capacity' whether RAM suffices; else detach the device ('virsh "
        "detach-device').",
    ),
    Rule(
        "guest.anonymous",
        _WARNING,
        "A running guest has anonymous memory (or memfd), which takes RAM and swap from the "
        "others.",
        "Stop it; 'ramshelf guest start NAME' then makes it file-backed.",
    ),
    Rule(
        "guest.private",
        _WARNING,
        "A running guest's memory is in files without shared access (<source type='file'/> alone, "
        "or access mode='private'): what the guest writes becomes anonymous memory, which takes "
        "RAM and swap from the others, and its place on the store besides.",
        "Stop it; 'ramshelf guest start NAME' then gives it shared access (<access mode='shared'/> "
        "in its memoryBacking, no memAccess='private' in its NUMA cells).",
    ),
    Rule(
        "guest.own-backend",
        _WARNING,
        "A running guest's qemu:commandline gives QEMU memory in a file on the store, of which "
        "libvirt knows nothing: no promise counts it, and the store's capacity shrinks as it is "
        "used.",
        "Describe the memory to libvirt (memoryBacking, NUMA cells, memory devices), or have the "
        "file lie elsewhere.",
    ),
    Rule(
        "guest.elsewhere",
        _FAILURE,
        "A running guest's memory files are not on the store: it was started before the store was "
        "mounted, or "
        "before memory_backing_dir was changed.",
        "Stop it and start it again.",
    ),
    Rule(
        "guest.not-reserved",
        _FAILURE,
        "A running guest needs more than it was promised, so others may be given its room. A "
        "warning where the promise is right and files never had their blocks; those that a guest "
        "has given back (virtio-mem, a balloon, free page reporting) are not missed.",
        "ramshelf hook install, then stop it and start it again.",
        _WARNING,
    ),
    Rule(
        "guest.hot-plugged",
        _WARNING,
        "A running guest got memory while it ran, which calls no hook: it counts, but nothing "
        "admitted it.",
        "Look at 'ramshelf capacity'; with the hook, guests are admitted by their maxMemory.",
    ),
    Rule(
        "guest.not-understood",
        _WARNING,
        "The XML of a running guest is not understood. It hides no other guest, but what it needs "
        "is not known.",
        "Look at 'virsh dumpxml NAME', and report it: libvirt understands it.",
    ),
    Rule(
        "guest.promise-unknown",
        _WARNING,
        "What a running guest was promised could not be read.",
        _AS_ROOT,
    ),
    Rule(
        "guest.discard-flushes",
        _WARNING,
        "A running guest has discard set where it writes all its memory back when the guest ends.",
        "'ramshelf guest stop NAME' takes it back first; the hook does so from guests that start.",
    ),
    Rule(
        "guest.unconfined",
        _WARNING,
        "The host's security driver does not confine this guest (its seclabel is of type none), and"
        " it runs as root or as a user that other guests have too.",
        "Remove the seclabel from its definition, or give it a user of its own by one of model dac;"
        " then start it anew.",
    ),
    Rule(
        "guest.files-unknown",
        _WARNING,
        "A running guest's memory files could not be looked at.",
        _AS_ROOT,
    ),
    Rule(
        "ram.ok",
        _OK,
        "RAM suffices for what cannot be on the store.",
    ),
    Rule(
        "ram.exceeded",
        _FAILURE,
        "QEMU's overhead, page tables, pinned and anonymous guests, private mappings, huge pages "
        "and the host's own needs together can exceed RAM and what swap on disks takes of them: "
        "guests can be killed, and no further guest with memory in files or pinned memory is "
        "admitted.",
        "Stop a guest that is not on the store, or add RAM, or swap on a disk: as much as is "
        "missing, and 2 MiB for each GiB of it ('ramshelf capacity' shows the sum).",
    ),
    Rule(
        "ram.anonymous",
        _WARNING,
        "Guests whose memory is in no file may use up RAM, and what swap on disks takes of them, "
        "alone. They are never refused for it; guests with memory in files or pinned memory are.",
        "Stop some; 'ramshelf guest start NAME' then makes them file-backed. Or add RAM, or swap on"
        " a disk.",
    ),
    Rule(
        "ram.tight",
        _WARNING,
        "Less than a tenth of RAM is left as a cache of the store.",
        "Move guests to another host, or add RAM.",
    ),
    Rule(
        "ram.memory-unknown",
        _WARNING,
        "The host's RAM could not be read.",
    ),
    Rule(
        "ram.guests-unknown",
        _WARNING,
        "What QEMU needs beside the guests' memory could not be measured.",
        _AS_ROOT,
    ),
    Rule(
        "ram.oomd",
        _WARNING,
        "systemd-oomd runs: it kills guests when swap fills or memory is under pressure, which is "
        "normal here.",
        "systemctl disable --now systemd-oomd, or ManagedOOMPreference=omit for machine.slice.",
    ),
    Rule(
        "ram.oomd-unknown",
        _WARNING,
        "Whether systemd-oomd runs could not be found out.",
        _AS_ROOT,
    ),
    Rule(
        "ram.strict-overcommit",
        _FAILURE,
        "vm.overcommit_memory is 2: pages of a tmpfs are refused beyond the commit limit, and "
        "guests die of SIGBUS. A warning where the store is no tmpfs.",
        "sysctl vm.overcommit_memory=0, and in /etc/sysctl.d.",
        _WARNING,
    ),
    Rule(
        "ram.overcommit-unknown",
        _WARNING,
        "vm.overcommit_memory could not be read.",
    ),
    Rule(
        "ram.slice-limit",
        _WARNING,
        "machine.slice is limited to less RAM than the host has: guests swap although there is "
        "RAM.",
        "systemctl set-property machine.slice MemoryMax=infinity.",
    ),
    Rule(
        "ram.slice-swap",
        _FAILURE,
        "machine.slice may use less swap than the guests on the store were promised: guests can be "
        "killed.",
        "systemctl set-property machine.slice MemorySwapMax=infinity.",
    ),
    Rule(
        "ram.slice-unknown",
        _WARNING,
        "The limits of machine.slice could not be read.",
        _AS_ROOT,
    ),
    Rule(
        "ram.oom-kills",
        _WARNING,
        "The kernel has killed processes since boot because memory was short.",
        "Look at the kernel's log for who was killed; keep what is not on the store within RAM.",
    ),
    Rule(
        "ram.oom-kills-unknown",
        _WARNING,
        "Whether the kernel has killed processes could not be found out.",
    ),
    Rule(
        "ram.daemon-unprotected",
        _INFO,
        "libvirt's daemon can be killed when memory is short; then the memory of dead guests is not"
        " freed.",
        "Add a drop-in with [Service] OOMScoreAdjust=-900 to libvirtd (or virtqemud).",
    ),
    Rule(
        "numa.ok",
        _OK,
        "A NUMA node's RAM holds what guests bind to it. As all of this group it is said on hosts "
        "with two or more nodes only.",
    ),
    Rule(
        "numa.node-overbound",
        _WARNING,
        "Guests bind more memory to a NUMA node than its RAM holds, and it cannot leave RAM: it is "
        "pinned, or on a tmpfs without swap, or anonymous where there is no swap. The kernel kills "
        "guests of that node while another has RAM to spare.",
        "Bind fewer guests to the node (numatune), or with mode='preferred'.",
    ),
    Rule(
        "numa.node-exceeded",
        _INFO,
        "Guests bind more memory to a NUMA node than its RAM holds. What is too much goes to the "
        "store or to swap, even while another node has RAM to spare.",
        "Spread them over the nodes, or use mode='preferred' in numatune.",
    ),
    Rule(
        "numa.binding-ignored",
        _INFO,
        "A guest binds its NUMA cells one by one (memnode) and its memory is on a disk store. QEMU "
        "does so by mbind(2), which the kernel ignores for shared pages of a regular file.",
        "Use mode='restrictive' (libvirt 7.3), which binds the vCPUs of each cell instead, or a "
        "store of kind swap.",
    ),
    Rule(
        "numa.chosen-unknown",
        _INFO,
        "A guest has placement='auto': libvirt does not tell which nodes numad has chosen, so its "
        "memory is not counted for any.",
    ),
    Rule(
        "numa.zone-reclaim",
        _WARNING,
        "vm.zone_reclaim_mode is not 0: when a node is full the kernel reclaims there before it "
        "takes RAM of another. With 4 in it guests' memory is written to the store although RAM is "
        "free.",
        "sysctl vm.zone_reclaim_mode=0, and in /etc/sysctl.d.",
    ),
    Rule(
        "numa.unknown",
        _WARNING,
        "The host's NUMA nodes could not be read.",
    ),
    Rule(
        "placement.ok",
        _OK,
        "Placement and this host agree.",
    ),
    Rule(
        "placement.no-store",
        _INFO,
        "There is no store, so that there is nothing to report.",
        "Make one: ramshelf store create.",
    ),
    Rule(
        "placement.shrunk",
        _FAILURE,
        "The store has come to hold less than it has promised (it was made smaller, or swap is "
        "gone): guests that use all of their memory can be killed. Placement is told of as much as "
        "the guests hold: no more come, and these can be moved. The inventory falls as they go.",
        "Give the store back what it lost, or stop guests; 'ramshelf capacity' shows who holds "
        "what.",
    ),
    Rule(
        "placement.differs",
        _WARNING,
        "This host's own provider is not there, or its inventory or traits are not what the "
        "store is.",
        "'ramshelf placement report' reports once; the agent does so all the time: see that it "
        "runs.",
    ),
    Rule(
        "placement.unallocated",
        _WARNING,
        "Guests run here that hold no allocation in Placement, or too small a one: their memory can"
        " be given away a second time, and is then refused at the start.",
        "Where ramshelf owns the provider the agent heals it, unless Placement has no room. Else "
        "ask Nova: nova-manage placement heal_allocations.",
    ),
    Rule(
        "placement.leftover",
        _WARNING,
        "Consumers hold allocations on this host's own provider, and no such guest runs here.",
        "'ramshelf placement report' removes them, and so does the agent: see that it runs.",
    ),
    Rule(
        "placement.allocation-ratio",
        _FAILURE,
        "Somebody has set an allocation_ratio other than 1.0, on the provider or through an "
        "aggregate. A warning where the provider is ramshelf's own, which sets it back.",
        "Nova: ram_allocation_ratio = 1.0 in nova.conf, and unset on the host's aggregates.",
        _WARNING,
    ),
    Rule(
        "placement.exceeds-store",
        _FAILURE,
        "nova-compute has reported more memory than the store can hold.",
        "Set [libvirt] file_backed_memory to what 'ramshelf capacity' shows, and restart "
        "nova-compute. Where more is allocated, move servers away first: with a Placement before "
        "2025.2 Nova can move none while less is reported than is allocated.",
    ),
    Rule(
        "placement.below-store",
        _INFO,
        "nova-compute has reported less than nine tenths of what the store can hold.",
        "Set [libvirt] file_backed_memory to what 'ramshelf capacity' shows, and restart "
        "nova-compute.",
    ),
    Rule(
        "placement.overcommitted",
        _FAILURE,
        "More is allocated on the provider than the store can hold.",
        f"Migrate servers away, or {ENLARGE}.",
    ),
    Rule(
        "placement.no-provider",
        _WARNING,
        "Placement has no resource provider of this host's name.",
        "Start nova-compute, which makes it; on a host without Nova set placement_owner = true.",
    ),
    Rule(
        "placement.no-inventory",
        _WARNING,
        "The provider has no inventory of MEMORY_MB.",
        "See nova-compute's log.",
    ),
    Rule(
        "placement.no-trait",
        _WARNING,
        "The provider lacks the trait that brings file-backed guests and this host together: "
        "nova-compute runs without file-backed memory, or Placement's os-traits are too old to "
        "know it.",
        "Set [libvirt] file_backed_memory and restart nova-compute; or upgrade Placement.",
    ),
    Rule(
        "placement.no-kind-trait",
        _INFO,
        "nova-compute does not report the custom trait for the store's kind.",
        "ramshelf placement provider-config > /etc/nova/provider_config/ramshelf.yaml; then restart"
        " nova-compute.",
    ),
    Rule(
        "placement.not-ours",
        _WARNING,
        "placement_owner is set on a host that is nova-compute's: nothing is written.",
        "Unset placement_owner. Where nova-compute will not run here, remove its provider and "
        "nova.conf.",
    ),
    Rule(
        "placement.in-the-way",
        _FAILURE,
        "The host's provider was made by ramshelf, and nova-compute has come: it cannot start.",
        "Delete the provider.",
    ),
    Rule(
        "placement.renamed",
        _WARNING,
        "ramshelf has made a provider for this host under another name, and it is still there with "
        "its inventory: memory is placed there that nobody has.",
        "If the host was renamed, delete the former provider. If that is another machine, give it "
        "an /etc/machine-id of its own.",
    ),
    Rule(
        "placement.unreachable",
        _WARNING,
        "Placement, or the Keystone before it, cannot be reached.",
        "See that it runs, and that [placement] names it as nova.conf does.",
    ),
    Rule(
        "placement.timeout",
        _WARNING,
        "Placement does not answer in time.",
        "See that it runs; [placement] timeout sets how many seconds ramshelf waits.",
    ),
    Rule(
        "placement.unauthorized",
        _WARNING,
        "Keystone or Placement does not accept the credentials of [placement].",
        "Compare [placement] with a nova.conf that works.",
    ),
    Rule(
        "placement.forbidden",
        _WARNING,
        "The user of [placement] may not do that.",
        "It needs the role service (or admin).",
    ),
    Rule(
        "placement.tls",
        _WARNING,
        "Placement's certificate cannot be trusted, or it does not speak TLS.",
        "Set cafile in [placement].",
    ),
    Rule(
        "placement.no-endpoint",
        _WARNING,
        "Keystone's catalogue does not name Placement.",
        "Check region_name, valid_interfaces and service_type in [placement].",
    ),
    Rule(
        "placement.too-old",
        _WARNING,
        "Placement is older than Rocky.",
        "Upgrade Placement.",
    ),
    Rule(
        "placement.conflict",
        _WARNING,
        "Others change the provider so often that this host could not be reported.",
        "The next pass tries again. Find out who writes to it.",
    ),
    Rule(
        "placement.consumer",
        _WARNING,
        "Placement refuses what one consumer is to hold, whatever room there is. The others are "
        "reported.",
        "The next pass tries again. 'openstack resource provider allocation show UUID' shows what "
        "it holds.",
    ),
    Rule(
        "placement.error",
        _WARNING,
        "Placement answers, but fails.",
        "See Placement's log.",
    ),
    Rule(
        "placement.database",
        _WARNING,
        "The embedded Placement's database cannot be used.",
        "See that the disk is not full; its contents can be lost without harm.",
    ),
    Rule(
        "placement.configuration",
        _WARNING,
        "The section [placement] cannot be used.",
        "It needs auth_type and what that type needs, as in nova.conf.",
    ),
    Rule(
        "placement.not-installed",
        _WARNING,
        "The Python packages that Placement is used with are not installed.",
        "pip install 'ramshelf[placement]'.",
    ),
    Rule(
        "upgrade.ok",
        _OK,
        "Nothing was found that the change of ramshelf's version would endanger.",
    ),
    Rule(
        "upgrade.guests",
        _INFO,
        "Guests run. They go on through the change, and keep what they were promised.",
    ),
    Rule(
        "upgrade.guests-unknown",
        _WARNING,
        "Which guests run is not known, so what they would lose by the change is not either.",
        "Run it as root, while libvirt runs.",
    ),
    Rule(
        "upgrade.hook-other",
        _FAILURE,
        "libvirt's hook is that of another version than this ramshelf: guests start by that "
        "version's rules until hook install. A failure where it is 0.1.0's and guests run: only "
        "while they run does hook install put on record what they were promised.",
        "ramshelf hook install, before a guest is stopped and before the host boots.",
        _WARNING,
    ),
    Rule(
        "upgrade.agent-units",
        _WARNING,
        "The agent's service calls ramshelf in a way that the version to come does not know, or "
        "that is only kept for old units.",
        "Once the other version is installed: ramshelf agent install.",
    ),
    Rule(
        "upgrade.option",
        _WARNING,
        "A configuration file sets an option that the version to come reads otherwise. A note "
        "where it only has no effect.",
        "Remove [ramshelf] strict, or see in the older version's documentation what it chooses.",
        _INFO,
    ),
    Rule(
        "upgrade.bypass-ends",
        _WARNING,
        "The hook is bypassed, and 0.1.0 knows no bypass: guests that only start by it are refused "
        "once its hook is installed.",
        "See to what the bypass is for first; ramshelf hook bypass --end.",
    ),
    Rule(
        "upgrade.promises",
        _WARNING,
        "0.1.0 reads what guests were promised from the sizes of their memory files. What guests "
        "were promised beyond that, to be plugged in later, it gives to others.",
        "Plug in what these guests are to have before, or stop them and lower their maxMemory.",
    ),
    Rule(
        "upgrade.capacity",
        _WARNING,
        "0.1.0 sets 1 MiB of each GiB of a disk store aside for the file system's records, where "
        "15.3 (ext4) or 8.3 (xfs) may be needed: on a full store guests lose memory.",
        "Set [libvirt] file_backed_memory to the capacity that ramshelf capacity shows now.",
    ),
    Rule(
        "upgrade.swap-files",
        _FAILURE,
        "store resize has added swap files to the store. 0.1.0 takes the first for all its swap: "
        "its store remove leaves the others switched on, and without their lines in fstab.",
        "Stop the store's guests; ramshelf store remove, and ramshelf store create with the whole "
        "size in one file.",
    ),
    Rule(
        "upgrade.ram",
        _INFO,
        "0.1.0 holds only guests that pin their memory against RAM: it admits guests that this "
        "version refuses with ram.exceeded.",
    ),
    Rule(
        "upgrade.version-unknown",
        _INFO,
        "The version to come is later than this ramshelf, which does not know what it changes.",
        "Install it, and ask it: ramshelf doctor --before-upgrade, before ramshelf hook install.",
    ),
)

RULES = {rule.code: rule for rule in _TABLE}


def finding(
    code: str, sentence: str, *, milder: bool = False, hint: str = "", **facts: object
) -> Finding:
    """Return a finding of the table.

    ``hint`` is for cases that allow a better hint than the table's.
    """
    rule = RULES[code]
    severity = rule.milder if milder and rule.milder is not None else rule.severity
    return Finding(
        code=code, severity=severity, sentence=sentence, hint=hint or rule.hint, facts=facts
    )


def unknown(code: str, what: str, fact: Unknown) -> Finding:
    """Return the finding for a fact that could not be had.

    ``what`` says which fact, as the start of a sentence.
    """
    return finding(code, f"{what}: {fact.reason}.", reason=fact.reason)


def not_for_root(found: Finding) -> Finding:
    """Return the finding without the hint to look again as root."""
    return replace(found, hint=found.hint.removeprefix(_AS_ROOT).lstrip())
