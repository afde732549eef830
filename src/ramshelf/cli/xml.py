"""``ramshelf xml``: domain XML in, file-backed domain XML out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import click

from ramshelf.cli.context import Context, pass_context, tell
from ramshelf.cli.domainfile import STANDARD_INPUT, named, read_domain
from ramshelf.cli.group import Group
from ramshelf.cli.later import later
from ramshelf.cli.notes import documents, say
from ramshelf.core.errors import RamshelfError
from ramshelf.core.findings import Finding

if TYPE_CHECKING:
    from ramshelf.core.domain import backing as core
    from ramshelf.node.guest import support as node
    from ramshelf.system import hypervisor as libvirt
else:
    core = later("ramshelf.core.domain.backing")
    node = later("ramshelf.node.guest.support")
    libvirt = later("ramshelf.system.hypervisor")


@click.group("xml", cls=Group)
def command() -> None:
    """Make domain XML file-backed."""


@command.command(
    "apply",
    epilog="""\b
Examples:
  virt-install ... --print-xml | ramshelf xml apply | virsh define /dev/stdin
  virsh dumpxml --inactive --security-info NAME | ramshelf xml apply > NAME.xml
""",
)
@click.argument("file", metavar="[FILE]", default=STANDARD_INPUT)
@click.option(
    "--discard",
    type=click.Choice(["auto", "yes", "no"]),
    help=(
        "Whether QEMU throws the memory's contents away when the guest ends. auto (the default): "
        "where libvirt >= 4.4, QEMU >= 2.10 and the store's file system do it without writing them "
        "to the device first (tmpfs; ext4 from Linux 6.14). It is not guaranteed to happen and "
        "cannot be used for security purposes."
    ),
)
@click.option(
    "--allocation",
    type=click.Choice(["ondemand", "immediate"]),
    help=(
        "When memory is allocated: when the guest uses it (ondemand, the default; the hook reserves"
        " it), or all of it at the start, which takes long and writes to the store's device."
    ),
)
@click.option(
    "--like-nova", is_flag=True, help="Write what Nova writes: allocation immediate, with discard."
)
@pass_context
def apply_command(
    context: Context,
    file: str,
    *,
    discard: str | None,
    allocation: str | None,
    like_nova: bool,
) -> None:
    """Make domain XML file-backed and print it.

    It reads FILE, or standard input, and sets in memoryBacking the source to file, the access to
    shared, the allocation and discard. Everything else stays as it is. Huge pages are refused. It
    looks at the host only for --discard auto.
    """
    if like_nova and (discard or allocation):
        raise click.UsageError("--like-nova decides about --discard and --allocation itself.")
    if file == STANDARD_INPUT and sys.stdin.isatty():
        tell("Reading domain XML from the terminal; end it with Ctrl-D.")
    document = read_domain(file)
    with named(file):
        if context.config.off:
            core.parse_document(document)
            _print(context, document, [core.OFF])
            return
        backing = (
            core.LIKE_NOVA
            if like_nova
            else core.Backing(
                allocation=core.AllocationMode(allocation or "ondemand"),
                discard=core.Discard(discard or "auto"),
            )
        )
        support = _support(context) if backing.discard is core.Discard.AUTO else core.Support()
        applied = core.make_file_backed(document, backing, support)
    _print(context, applied.xml.encode(), applied.notes)


def _print(context: Context, xml: bytes, notes: Sequence[Finding]) -> None:
    if context.as_json:
        text = xml.decode(errors="replace")
        context.emit({"xml": text, "notes": documents(notes)}, lambda: None)
    else:
        say(notes)
        click.echo(xml, nl=False)


def _support(context: Context) -> core.Support:
    """Return what can be seen of this host, which may not be the one that the guest is for."""
    with ExitStack() as stack:
        hypervisor = None
        with suppress(RamshelfError):
            hypervisor = stack.enter_context(libvirt.Hypervisor(context.uri, read_only=True))
        return node.observe_support(hypervisor)
