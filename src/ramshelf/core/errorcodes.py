"""Every code that an error or a note of a command has: what it means, what to do.

The tables of docs/reference/errors.md are printed from this one. Codes are stable: scripts rely on
them. What the doctor reports is in catalog.py; some codes are in both. An error that is raised has
its own sentence and hint, which name the guest, the file or the device.
"""

from dataclasses import dataclass

from ramshelf.core.errors import ENLARGE

SECTIONS = {
    "cli": ("The command line and the system", "every command"),
    "config": ("The configuration", "every command"),
    "libvirt": ("libvirt", "commands that ask libvirt"),
    "space": ("Space", "libvirt's hook, guest start, guest migrate"),
    "guest": ("Guests", "guest start, guest stop, guest trim, guest migrate, libvirt's hook"),
    "migration": ("Migration", "guest migrate"),
    "xml": ("Domain XML", "xml apply, guest start, guest migrate"),
    "store": (
        "The store",
        "store create, store resize, store remove, store clean, guest start, capacity",
    ),
    "hook": ("The hook", "hook install, hook remove, hook bypass, guest start, libvirt's hook"),
    "files": ("Files that others edit too", "store, hook and agent, where they change files"),
    "agent": ("The agent", "agent run, agent install, agent remove"),
    "notes": ("Notes and warnings", "xml apply, guest start, as a note"),
    "placement": ("Placement", "placement show, placement report, guest start, guest migrate"),
}
"""The title of each section, and who says its codes."""


@dataclass(frozen=True)
class ErrorCode:
    """One code of the table.

    ``hint`` is '' where there is nothing to do, or where only the error itself can say what.
    """

    section: str
    code: str
    meaning: str
    hint: str = ""


_TABLE = (
    ErrorCode(
        "cli",
        "cli.usage",
        "There is no such command or option, or an option does not take this value.",
        "Add --help to the command: it shows what it takes.",
    ),
    ErrorCode(
        "cli",
        "cli.interrupted",
        "Ctrl-C was pressed; exit status 130.",
    ),
    ErrorCode(
        "cli",
        "system.permission",
        "The system refused access.",
        "Run it as root.",
    ),
    ErrorCode(
        "cli",
        "system.io",
        "The system refused to read or write.",
        "The message names the file and the reason; 'findmnt --target FILE' shows what is mounted "
        "there.",
    ),
    ErrorCode(
        "cli",
        "tool.missing",
        "A program that ramshelf needs is not installed.",
        "Install the package that has the program.",
    ),
    ErrorCode(
        "cli",
        "tool.failed",
        "A program failed; facts has its command line, exit status and output.",
        "Look at what the program said: it is in the message, and with --json in facts.",
    ),
    ErrorCode(
        "cli",
        "tool.timeout",
        "A program did not end in time.",
        "See what keeps it waiting, such as a device that does not answer; then run the command "
        "again.",
    ),
    ErrorCode(
        "cli",
        "internal.bug",
        "ramshelf has a bug.",
        "Report it with what RAMSHELF_DEBUG=1 in the environment shows.",
    ),
    ErrorCode(
        "config",
        "config.missing",
        "A configuration file or directory that was named is not there.",
        "Check what --config-file and --config-dir name.",
    ),
    ErrorCode(
        "config",
        "config.unreadable",
        "A configuration file cannot be read.",
    ),
    ErrorCode(
        "config",
        "config.malformed",
        "A configuration file is not in nova.conf's format (or qemu.conf not in libvirt's), or is "
        "no text.",
    ),
    ErrorCode(
        "config",
        "config.value",
        "An option has a value of the wrong type, or one that is out of range.",
    ),
    ErrorCode(
        "config",
        "config.reference",
        "An option refers by $NAME to one that no file sets.",
    ),
    ErrorCode(
        "config",
        "config.unknown-key",
        "[ramshelf] has an option that does not exist.",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.unreachable",
        "No daemon answers.",
        "Start it: systemctl start libvirtd (or virtqemud.socket).",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.connection-lost",
        "The daemon went away meanwhile.",
        "See that libvirt runs, then run the same command again.",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.no-answer",
        "The daemon is there and does not answer; only the agent gives up waiting.",
        "See whether it hangs: systemctl status libvirtd virtqemud.",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.permission",
        "This user may not do that.",
        "Run it as root, or as a member of the group libvirt.",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.driver",
        "The connection is not to QEMU.",
        "Use --connect qemu:///system.",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.remote",
        "The connection is to another host.",
        "Run ramshelf on that host.",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.session",
        "The connection is to a user's own libvirt, which has no store.",
        "Use --connect qemu:///system.",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.unsupported",
        "This libvirt or QEMU cannot do that.",
        "Upgrade libvirt or QEMU.",
    ),
    ErrorCode(
        "libvirt",
        "host.kvm",
        "The guest is of type kvm, and libvirt has found no KVM here.",
        "Enable virtualization in the firmware, load kvm_intel or kvm_amd, and restart libvirtd. "
        "To try things out without KVM: <domain type='qemu'>.",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.running",
        "libvirt runs, and only without it can its records be relied on.",
        "Leave --without-libvirt away: libvirt is then asked which guests are active.",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.busy",
        "Another operation on the guest has not ended.",
        "Wait until it has ended, and run the command again.",
    ),
    ErrorCode(
        "libvirt",
        "libvirt.failed",
        "libvirt reports something that has no code of its own.",
        "The sentence is libvirt's own; its log, and the guest's in /var/log/libvirt/qemu, say "
        "more.",
    ),
    ErrorCode(
        "space",
        "capacity.exceeded",
        "The guest does not fit beside the others; facts has missing_mib.",
        f"Stop a guest, give this one less memory, or {ENLARGE}; "
        "'ramshelf capacity' shows who holds what.",
    ),
    ErrorCode(
        "space",
        "ram.exceeded",
        "The guest has memory in files or pins it, and RAM cannot hold what cannot go to the store"
        " beside the other guests'; facts has missing_mib and the parts.",
        "End or move a guest whose memory is anonymous or pinned, or add RAM, or swap on a disk; "
        "'ramshelf capacity' shows the sum.",
    ),
    ErrorCode(
        "space",
        "store.full",
        "The file system has less room than was promised: something else takes it.",
        "Remove what else takes its space; 'ramshelf capacity' shows who holds what.",
    ),
    ErrorCode(
        "space",
        "store.failed",
        "The file system refuses the memory files.",
        "'df' and 'df -i' show whether space or inodes are gone; 'ramshelf doctor' says more.",
    ),
    ErrorCode(
        "guest",
        "guest.not-found",
        "libvirt knows no such guest.",
        "'virsh list --all' lists the guests.",
    ),
    ErrorCode(
        "guest",
        "guest.exists",
        "A file defines a guest whose name another guest has.",
        "Start that guest by its name; or, to replace it, give the file its UUID.",
    ),
    ErrorCode(
        "guest",
        "guest.state",
        "The guest is in a state that does not allow this.",
        "'virsh domstate NAME --reason' shows it.",
    ),
    ErrorCode(
        "guest",
        "guest.not-file-backed",
        "The guest runs, and its memory is not in files.",
        "Stop it first: 'ramshelf guest start' then makes it file-backed.",
    ),
    ErrorCode(
        "guest",
        "guest.busy",
        "The guest is being saved, dumped, migrated or trimmed.",
        "Run the command again when that has ended.",
    ),
    ErrorCode(
        "guest",
        "guest.keeps-extents",
        "'guest trim': the store is of kind disk or dax, where there is nothing to give back.",
        "Nothing needs to be done: what such a store has promised is allocated in any case.",
    ),
    ErrorCode(
        "guest",
        "guest.device-access",
        "'guest trim': a host device or vDPA reaches the guest's memory by itself.",
        "Its memory stays allocated until the guest ends.",
    ),
    ErrorCode(
        "guest",
        "guest.memory-locked",
        "'guest trim': the guest has <locked/>.",
        "Its memory stays allocated until the guest ends.",
    ),
    ErrorCode(
        "guest",
        "guest.memory-shared",
        "'guest trim': another process maps the guest's memory, such as virtiofsd.",
        "Its memory stays allocated until the guest ends.",
    ),
    ErrorCode(
        "guest",
        "guest.not-stopped",
        "'guest trim': QEMU does not stop for the moment that it is to be held.",
        "Run it again later; if the host is that busy all the time, the memory stays allocated "
        "until the guest ends.",
    ),
    ErrorCode(
        "guest",
        "guest.traced",
        "'guest trim': a debugger or strace is on QEMU, so that nobody else can hold it still.",
        "Run it again when the debugger has ended.",
    ),
    ErrorCode(
        "guest",
        "host.no-ptrace",
        "'guest trim': the kernel or a sandbox does not let QEMU be held still (ptrace(2)).",
        "It needs root with CAP_SYS_PTRACE, kernel.yama.ptrace_scope below 3, and no sandbox or "
        "deny_ptrace of SELinux.",
    ),
    ErrorCode(
        "guest",
        "guest.no-guard",
        "'guest trim', 'guest migrate --offline': the process that would put the guest right, if "
        "the command were killed, does not run; the guest is left as it is.",
        "Run the command again; 'ramshelf doctor' says whether the host lacks something.",
    ),
    ErrorCode(
        "guest",
        "guest.paused",
        "The guest is paused and cannot shut down by itself.",
        "'virsh resume NAME' lets it go on; 'ramshelf guest stop NAME --now' ends it.",
    ),
    ErrorCode(
        "guest",
        "guest.saved",
        "The guest's saved state was made without file-backed memory.",
        "Start it with 'virsh start NAME', or drop the saved state: 'virsh managedsave-remove "
        "NAME'.",
    ),
    ErrorCode(
        "guest",
        "guest.vetoed",
        "A hook refused the guest; the sentence says why.",
    ),
    ErrorCode(
        "guest",
        "guest.huge-pages",
        "The guest asks for huge pages and file-backed memory at once.",
        "Remove <hugepages> from its <memoryBacking> (in Nova: hw:mem_page_size from the flavor).",
    ),
    ErrorCode(
        "guest",
        "guest.passthrough",
        "The guest's host device or encryption needs memory that this file system cannot pin.",
        "Use a store of kind swap, or start this guest without file-backed memory.",
    ),
    ErrorCode(
        "guest",
        "guest.directory-missing",
        "The guest's directory is not where qemu.conf says.",
        "memory_backing_dir was changed while libvirtd ran: restart libvirtd, or change it back.",
    ),
    ErrorCode(
        "guest",
        "guest.directory-not-empty",
        "Somebody puts files into the guest's directory all the while.",
        "See which processes of QEMU's user run.",
    ),
    ErrorCode(
        "guest",
        "guest.directory-in-use",
        "The guest's directory is that of another guest that runs.",
        "Start the guest again: libvirt then gives it another number and directory.",
    ),
    ErrorCode(
        "migration",
        "migration.refused",
        "The guest cannot move in the way that was asked for; facts has the reasons.",
        "'ramshelf guest migrate NAME DEST-URI --check' shows the reasons, each with what to do.",
    ),
    ErrorCode(
        "migration",
        "migration.unknown",
        "With --offline: the other host does not answer any more; it is not known whether the "
        "guest runs there. It is asked again for 15 minutes.",
        "See on the other host. If it does not run there: 'virsh undefine NAME' there, and "
        "'ramshelf guest start NAME' here.",
    ),
    ErrorCode(
        "migration",
        "migration.stranded",
        "With --offline: the guest started neither there nor here again.",
        "Put right what the message names; then 'ramshelf guest start NAME' here.",
    ),
    ErrorCode(
        "migration",
        "migration.still-defined",
        "A warning: the guest runs there, and libvirt does not undefine it here.",
        "Undefine it here: 'virsh undefine NAME'.",
    ),
    ErrorCode(
        "migration",
        "migration.same-host",
        "The guest cannot move: it is this host.",
    ),
    ErrorCode(
        "migration",
        "migration.exists",
        "The guest cannot move: there is a guest of that name or UUID there.",
    ),
    ErrorCode(
        "migration",
        "migration.no-hook",
        "The guest cannot move: ramshelf's hook does not answer there.",
        "Install ramshelf and its hook there: ramshelf hook install.",
    ),
    ErrorCode(
        "migration",
        "migration.not-running",
        "The guest cannot move: the guest does not run.",
        "Start it, or move it with --offline.",
    ),
    ErrorCode(
        "migration",
        "migration.saved",
        "The guest cannot move: a saved state would be lost.",
        "Start the guest, or drop the saved state: 'virsh managedsave-remove NAME'.",
    ),
    ErrorCode(
        "migration",
        "migration.device",
        "The guest cannot move: a host device cannot come along.",
        "Detach the device, or move the guest with --offline.",
    ),
    ErrorCode(
        "migration",
        "migration.locked",
        "The guest cannot move: postcopy cannot fill locked memory.",
        "Move it without --postcopy.",
    ),
    ErrorCode(
        "migration",
        "migration.userfaultfd",
        "The guest cannot move: postcopy needs vm.unprivileged_userfaultfd=1 there.",
        "Set vm.unprivileged_userfaultfd = 1 there, or move it without --postcopy.",
    ),
    ErrorCode(
        "migration",
        "migration.postcopy",
        "The guest cannot move: postcopy needs a tmpfs there.",
        "Move it without --postcopy.",
    ),
    ErrorCode(
        "migration",
        "migration.becomes-anonymous",
        "The guest cannot move: the guest's memory is in files, and would not be there.",
        "Make a store there, or move it with --offline.",
    ),
    ErrorCode(
        "migration",
        "migration.becomes-file-backed",
        "The guest cannot move: the guest's memory is not in files, and would be there.",
        "Move it with --offline.",
    ),
    ErrorCode(
        "xml",
        "xml.file",
        "A file that was named cannot be read.",
        "Name a file with a guest's domain XML, as 'virsh dumpxml' prints it.",
    ),
    ErrorCode(
        "xml",
        "xml.empty",
        "The input is empty.",
        "Give domain XML, as 'virsh dumpxml' prints it.",
    ),
    ErrorCode(
        "xml",
        "xml.malformed",
        "The input is no XML.",
        "Give domain XML, as 'virsh dumpxml' prints it.",
    ),
    ErrorCode(
        "xml",
        "xml.doctype",
        "The XML has a document type declaration, which could define entities.",
        "Remove the <!DOCTYPE>.",
    ),
    ErrorCode(
        "xml",
        "xml.too-large",
        "The XML is larger than libvirt takes.",
    ),
    ErrorCode(
        "xml",
        "xml.several-documents",
        "The input has more than one document.",
        "virt-install prints one for the installation and one for later boots: choose with "
        "--print-xml 1 or --print-xml 2.",
    ),
    ErrorCode(
        "xml",
        "xml.not-a-domain",
        "The XML is not that of a guest.",
        "Give domain XML, as 'virsh dumpxml' prints it.",
    ),
    ErrorCode(
        "xml",
        "xml.hypervisor",
        "The guest is of another type than kvm and qemu.",
        "Use <domain type='kvm'> or <domain type='qemu'>.",
    ),
    ErrorCode(
        "xml",
        "xml.name",
        "The guest has no name, or one that libvirt cannot use.",
    ),
    ErrorCode(
        "xml",
        "xml.memory",
        "A memory size makes no sense.",
    ),
    ErrorCode(
        "xml",
        "xml.duplicate-element",
        "An element is there twice that may be there once.",
    ),
    ErrorCode(
        "xml",
        "xml.hugepages",
        "The guest asks for huge pages; the sentence names the element.",
        "Remove the element, or run this guest without file-backed memory.",
    ),
    ErrorCode(
        "xml",
        "xml.launch-security",
        "The guest is encrypted, and its memory cannot lie in files.",
        "Run this guest without file-backed memory.",
    ),
    ErrorCode(
        "xml",
        "xml.shared-memory",
        "The guest's memory is shared with another process (virtiofsd, vhost-user), and cannot "
        "become anonymous.",
        "Give it <source type='memfd'/> and <access mode='shared'/> by hand.",
    ),
    ErrorCode(
        "xml",
        "xml.refused",
        "libvirt refuses the XML; the sentence is its own.",
    ),
    ErrorCode(
        "store",
        "store.usage",
        "The options do not go together.",
        "'ramshelf store create --help' shows what goes together.",
    ),
    ErrorCode(
        "store",
        "store.path",
        "A path would need quoting in fstab or units.",
        "Give an absolute path of letters, digits and . _ + @ : - without '..' or '//'.",
    ),
    ErrorCode(
        "store",
        "store.symbolic-link",
        "A path leads through a symbolic link; for guests' memory, through one that others than "
        "root could have made.",
        "Name the real place: --file or --directory with the path that 'realpath' prints.",
    ),
    ErrorCode(
        "store",
        "store.needs-root",
        "Only root can do this.",
        "Run it with sudo.",
    ),
    ErrorCode(
        "store",
        "store.tool-missing",
        "A program that the store needs is not installed.",
        "Packages: util-linux, e2fsprogs, xfsprogs, mount.",
    ),
    ErrorCode(
        "store",
        "store.no-qemu-user",
        "The user that QEMU runs as does not exist.",
        "Install libvirt's QEMU driver, or set user and group in qemu.conf.",
    ),
    ErrorCode(
        "store",
        "store.parent-missing",
        "The place for the mount point is no directory.",
        "Install libvirt's QEMU driver (libvirt-daemon-system, libvirt-daemon-driver-qemu), or "
        "name another place with --directory.",
    ),
    ErrorCode(
        "store",
        "store.exists",
        "There is a store with other parameters.",
        "To make it larger: ramshelf store resize. For anything else remove it first: ramshelf "
        "store remove. 'ramshelf store show' tells what it is.",
    ),
    ErrorCode(
        "store",
        "store.not-made",
        "There is no store that 'ramshelf store create' made.",
        "Grow what you made with its own tools; ramshelf goes by what the file system says.",
    ),
    ErrorCode(
        "store",
        "store.no-resize",
        "A store like this cannot grow while it is in use: its swap is a device, or it was made "
        "larger than its swap.",
        "Stop its guests; then: ramshelf store remove, and ramshelf store create --kind swap with "
        "the new size.",
    ),
    ErrorCode(
        "store",
        "store.shrink",
        "The store has more than the size asked for, and is never made smaller while it is in use.",
        "To make a smaller one stop its guests; then: ramshelf store remove, and ramshelf store "
        "create --size.",
    ),
    ErrorCode(
        "store",
        "store.qemu-conf",
        "qemu.conf sets memory_backing_dir in a way that ramshelf cannot edit.",
        "Put it on a line of its own, or set it yourself and restart libvirtd.",
    ),
    ErrorCode(
        "store",
        "store.guests-running",
        "Guests run on the store, or with memory in files.",
        "Stop them first; their memory cannot move while they run.",
    ),
    ErrorCode(
        "store",
        "store.mount-point-busy",
        "Something else is mounted there.",
        "Unmount it and take it out of /etc/fstab, or use it as it is: ramshelf doctor checks it.",
    ),
    ErrorCode(
        "store",
        "store.mount-point-not-empty",
        "The store would hide what is there.",
        "Stop the guests whose memory it is, or remove what they left.",
    ),
    ErrorCode(
        "store",
        "store.not-a-block-device",
        "What --device names is no block device.",
        "lsblk lists the block devices of this host.",
    ),
    ErrorCode(
        "store",
        "store.device-in-use",
        "The device is mounted, swap, or part of something.",
        "Name a device that nothing uses.",
    ),
    ErrorCode(
        "store",
        "store.device-read-only",
        "The device is read-only.",
        "Name a device that can be written.",
    ),
    ErrorCode(
        "store",
        "store.device-not-empty",
        "The device carries a signature or a partition table.",
        "If all of it may be lost, name the device again: --wipe DEV.",
    ),
    ErrorCode(
        "store",
        "store.device-too-small",
        "The device is smaller than the size asked for.",
        "Name a smaller --size, or a larger device.",
    ),
    ErrorCode(
        "store",
        "store.too-small",
        "The size is too small for the kind.",
        "Name a larger --size.",
    ),
    ErrorCode(
        "store",
        "store.exceeds-memory",
        "A store of kind ram would be larger than RAM.",
        "Use --kind swap for more guest memory than RAM; [ramshelf] host_reserved_memory_mb says "
        "what the host needs.",
    ),
    ErrorCode(
        "store",
        "store.not-a-file",
        "--file names a directory or a device.",
        "Name a file that is not there yet; for a device use --device.",
    ),
    ErrorCode(
        "store",
        "store.file-exists",
        "The file is there already.",
        "ramshelf makes the file itself: name another, or remove this one.",
    ),
    ErrorCode(
        "store",
        "store.file-directory-missing",
        "The file's directory is not there.",
        "Make the directory first.",
    ),
    ErrorCode(
        "store",
        "store.file-system",
        "The file would lie on a file system that does not keep blocks allocated.",
        "Name a file on ext4 or xfs.",
    ),
    ErrorCode(
        "store",
        "store.no-room",
        "The file's file system has too little room.",
        "Name a smaller --size or another --file.",
    ),
    ErrorCode(
        "store",
        "store.not-allocated",
        "The file system did not allocate all of the file.",
        "Use a file on ext4 or xfs, or a device.",
    ),
    ErrorCode(
        "store",
        "store.thin",
        "The device or file is thin or sparse.",
        "Use a fully allocated partition, volume or file on a disk.",
    ),
    ErrorCode(
        "store",
        "store.no-dax",
        "The device has no direct access.",
        "Use --kind swap or --kind disk.",
    ),
    ErrorCode(
        "store",
        "store.no-fallocate",
        "The store's file system cannot reserve space.",
        "Make the store again: ramshelf store create makes ext4 with extents, or xfs.",
    ),
    ErrorCode(
        "store",
        "store.incomplete",
        "Every step ended well and something is still not as it should be.",
        "Run the same command again with --dry-run to see what is left.",
    ),
    ErrorCode(
        "store",
        "store.interrupted",
        "Ctrl-C between two steps; the same command goes on from there.",
        "Run the same command again: it goes on from there.",
    ),
    ErrorCode(
        "store",
        "store.locked",
        "Another ramshelf holds the store's lock for too long.",
        "'fuser -v /run/ramshelf/*lock' shows who holds it.",
    ),
    ErrorCode(
        "store",
        "store.not-mounted",
        "fstab names a store that is not mounted, or something else is mounted in its place.",
    ),
    ErrorCode(
        "store",
        "store.root-file-system",
        "There is no store: a plain directory of the system's own file system.",
        "Make a store: ramshelf store create --help.",
    ),
    ErrorCode(
        "store",
        "store.unsupported",
        "The file system cannot be a store.",
    ),
    ErrorCode(
        "store",
        "store.other-device",
        "Something is mounted between the store and the guest's directory.",
        "'findmnt --target' with both paths shows it.",
    ),
    ErrorCode(
        "store",
        "store.read-only",
        "The store is read-only.",
        "A file system that met errors turns read-only: see the kernel's messages.",
    ),
    ErrorCode(
        "hook",
        "hook.needs-root",
        "Only root can do this.",
        "Run it with sudo.",
    ),
    ErrorCode(
        "hook",
        "hook.no-directory",
        "This libvirt is too old to look into qemu.d.",
        "Upgrade libvirt.",
    ),
    ErrorCode(
        "hook",
        "hook.foreign",
        "The hook's file was made by somebody else.",
        "Rename it: libvirt calls every executable in that directory, whatever its name.",
    ),
    ErrorCode(
        "hook",
        "hook.time-out",
        "The hook could not decide about a guest within 20 s.",
        "Start the guest again; the hook's log, /run/ramshelf/hook.log, says what it waited for.",
    ),
    ErrorCode(
        "hook",
        "hook.broken",
        "The hook does not run: its Python or its copy of ramshelf's modules is gone. Also said by"
        " the hook's script when it refuses a guest whose memory is in files or pinned.",
        "Install it again: ramshelf hook install. Where libvirt runs in a container, see that "
        "/usr/local/lib/ramshelf is there.",
    ),
    ErrorCode(
        "hook",
        "hook.no-python",
        "There is no /usr/bin/python3, or it is older than 3.9; or libvirt finds none where it "
        "runs.",
        "Install the distribution's own python3; where libvirt runs in a container, in there.",
    ),
    ErrorCode(
        "hook",
        "hook.denied",
        "libvirt calls the hook and may not execute it or /usr/bin/python3 (status 126): a "
        "security profile.",
        "The kernel's messages name what was denied ('journalctl -k'); "
        "/etc/apparmor.d/local/usr.sbin.libvirtd may allow it.",
    ),
    ErrorCode(
        "hook",
        "hook.missing",
        "The hook is not installed, and nothing would keep the guest within the store.",
        "Install it: ramshelf hook install.",
    ),
    ErrorCode(
        "hook",
        "hook.not-executable",
        "The hook is not executable, and nothing would keep the guest within the store.",
        "Install it again: ramshelf hook install.",
    ),
    ErrorCode(
        "hook",
        "hook.unseen",
        "The running libvirt does not call the hook, and nothing would keep the guest within the "
        "store.",
        "Restart libvirtd (or virtqemud), or install the hook again: ramshelf hook install.",
    ),
    ErrorCode(
        "hook",
        "hook.not-called",
        "The running libvirt does not call the hook.",
        "libvirt may run in a container with an /etc/libvirt of its own: install the hook in "
        "there. Else restart it.",
    ),
    ErrorCode(
        "hook",
        "hook.other-view",
        "The hook that libvirt calls sees another store or other settings than this command: it "
        "runs where libvirt runs.",
    ),
    ErrorCode(
        "hook",
        "hook.bypass-time",
        "'hook bypass' was given no time that it could use.",
        "Give a time of up to 24h, such as 90s, 30min or 2h.",
    ),
    ErrorCode(
        "hook",
        "hook.interrupted",
        "Ctrl-C between two steps; the same command goes on from there.",
        "Run the same command again: it goes on from there.",
    ),
    ErrorCode(
        "files",
        "file.link",
        "A directory that is to be made lies behind a link that others than root may have planted.",
        "Somebody other than root has put it there: see what it is, and remove it.",
    ),
    ErrorCode(
        "files",
        "file.changed",
        "Somebody else has changed a file since the plan was made, or changes it all the time: it "
        "is as they left it, and the same command goes on from there.",
        "Look at the file, and run the same command again: it goes on from there.",
    ),
    ErrorCode(
        "agent",
        "agent.needs-root",
        "Only root can do this.",
        "Run it with sudo.",
    ),
    ErrorCode(
        "agent",
        "agent.running",
        "Another agent runs on this host; facts has its process.",
        "One is enough for a host: see 'systemctl status ramshelf-agent'.",
    ),
    ErrorCode(
        "agent",
        "agent.foreign",
        "The service's unit was made by somebody else.",
        "Remove or rename it, if the agent is to be a service that ramshelf made.",
    ),
    ErrorCode(
        "agent",
        "agent.no-systemd",
        "There is no systemd here that could run a service.",
        "Have whatever starts services here run 'ramshelf agent run'; it stays in the foreground.",
    ),
    ErrorCode(
        "agent",
        "agent.interrupted",
        "Ctrl-C between two steps; the same command goes on from there.",
        "Run the same command again: it goes on from there.",
    ),
    ErrorCode(
        "agent",
        "metrics.no-address",
        "The address or port of the metrics cannot be had; it is tried again (in the log only).",
        "Set [ramshelf] metrics_address and metrics_port; port 0 serves none.",
    ),
    ErrorCode(
        "agent",
        "metrics.no-listener",
        "Nobody takes scrapes at the Unix socket of --metrics-socket, which is ramshelf-"
        "metrics.service's; it is tried again (in the log). agent install warns where it can tell "
        "beforehand: that service may not read where ramshelf is installed.",
        "See 'systemctl status ramshelf-metrics.socket ramshelf-metrics.service'. Install ramshelf"
        " where every user may read it, such as below /opt.",
    ),
    ErrorCode(
        "notes",
        "config.off",
        "File-backed memory is switched off: nothing is done.",
        "Set [libvirt] file_backed_memory to the capacity_mib of 'ramshelf capacity --json'.",
    ),
    ErrorCode(
        "notes",
        "backing.source-replaced",
        "The guest had another memory source, which was replaced by file.",
    ),
    ErrorCode(
        "notes",
        "backing.private-replaced",
        "Private memory was made shared.",
    ),
    ErrorCode(
        "notes",
        "backing.discard-replaced",
        "An element's own discard was replaced.",
    ),
    ErrorCode(
        "notes",
        "backing.locked",
        "The guest locks its memory: all of it stays in RAM, besides its place on the store.",
    ),
    ErrorCode(
        "notes",
        "backing.hotplug",
        "The guest is counted with its maxMemory: no hook is called when memory is plugged in.",
    ),
    ErrorCode(
        "notes",
        "backing.qemu-commandline",
        "qemu:commandline has arguments about memory; they are kept and may undo the file backing.",
    ),
    ErrorCode(
        "notes",
        "discard.flushes",
        "The store's file system writes memory to the device before it discards it. Discard is set "
        "only if it was asked for.",
    ),
    ErrorCode(
        "notes",
        "discard.unknown",
        "It could not be found out whether discard may be set.",
    ),
    ErrorCode(
        "notes",
        "discard.unsupported",
        "libvirt or QEMU is too old for discard.",
        "Use --discard auto.",
    ),
    ErrorCode(
        "placement",
        "placement.full",
        "Placement has no room for the guest's memory on this host, though the store may have.",
        "Stop or move a guest, or see what Placement holds: 'ramshelf placement show'.",
    ),
    ErrorCode(
        "placement",
        "placement.unused",
        "Neither [ramshelf] placement nor [placement] says which Placement to ask; exit status "
        "255.",
        "Set [ramshelf] placement = remote and the section [placement] as in nova.conf; or "
        "placement = embedded to try it out.",
    ),
    ErrorCode(
        "placement",
        "placement.reported",
        "No error but what 'placement report' has done, where the provider is ramshelf's own.",
    ),
    ErrorCode(
        "placement",
        "placement.compared",
        "No error but what 'placement report' has done, where it is not ramshelf's own.",
    ),
)

ERROR_CODES = {each.code: each for each in _TABLE}
