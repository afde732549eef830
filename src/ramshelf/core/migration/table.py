"""Hosts of every sort as source and destination, as the reference shows them.

The judgements come from the rules themselves.
"""

from ramshelf.core.domain.memory import Guest, parse_guest
from ramshelf.core.migration.answer import HostAnswer
from ramshelf.core.migration.verdict import Host, Moving, Verdict, Way, judge
from ramshelf.core.requirements import Version
from ramshelf.core.store.kind import Kind

_XML = """\
<domain type='kvm'><name>web1</name><memory unit='GiB'>4</memory>{}
  <os><type arch='x86_64' machine='q35'>hvm</type></os></domain>
"""
_ANONYMOUS = parse_guest(_XML.format(""))
_FILE = parse_guest(
    _XML.format(
        "<memoryBacking><source type='file'/><access mode='shared'/><discard/></memoryBacking>"
    )
)


def _host(
    answer: HostAnswer | None, *, libvirt: Version = (9, 0, 0), qemu: Version = (7, 2, 0)
) -> Host:
    return Host(name="host2", uuid="2", libvirt=libvirt, qemu=qemu, answer=answer)


def _with_store(kind: Kind, fstype: str) -> HostAnswer:
    return HostAnswer(
        kernel="6.1.0", kind=kind, fstype=fstype, free_mib=1 << 20, pinnable_mib=1 << 20
    )


HOSTS: dict[str, tuple[Guest, Host]] = {
    "anonymous": (_ANONYMOUS, _host(HostAnswer(kernel="6.1.0", problem="store.root-file-system"))),
    "file, disk": (_FILE, _host(_with_store(Kind.DISK, "xfs"))),
    "file, tmpfs": (_FILE, _host(_with_store(Kind.SWAP, "tmpfs"))),
    "file, no discard": (_FILE, _host(_with_store(Kind.SWAP, "tmpfs"), qemu=(2, 9, 0))),
    "below the floors": (_ANONYMOUS, _host(None, libvirt=(3, 9, 0), qemu=(2, 5, 0))),
    "no hook": (_FILE, _host(None)),
}
"""Each sort of host: a guest such as runs there, and the host as one that guests come to."""


def verdict(source: str, destination: str) -> Verdict:
    """Judge whether a guest of the one host can move to the other."""
    guest, _ = HOSTS[source]
    _, there = HOSTS[destination]
    return judge(Moving(guest=guest, host_uuid="1"), there)


def cell(source: str, destination: str) -> str:
    """Return the same in words: the ways that there are, and what bars a live migration."""
    judged = verdict(source, destination)
    ways = [way.name.lower() for way in Way if judged.possible(way)]
    if "live" in ways and judged.discard:
        ways.append("with discard")
    codes = [f"`{reason.code}`" for reason in judged.against(Way.LIVE)]
    return ", ".join(ways or ["no"]) + (f": {', '.join(codes)}" if codes else "")
