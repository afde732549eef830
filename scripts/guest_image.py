#!/usr/bin/env python3
"""guest_image.py DIRECTORY: put a guest's kernel and initramfs there, readable by all users.

The guest is busybox. It reports over the serial port, and its kernel command line says what it
does:

    (always)              GUEST-UP <MiB that it sees>
    ramshelf.dirty=MIB    writes random bytes (the same MiB over and over) to MIB of its memory, its
                          CPUs each a share: DIRTIED <MIB>
    ramshelf.dirty=all    the same with all that is free, but a margin of 16 MiB
    ramshelf.late=MIB     the same once the host has inflated a balloon (BALLOONED) and deflated it
                          again
    ramshelf.rewrite      then writes the same pages anew, round after round: ROUND <N>
    ramshelf.rewrite=MIB  so many of them only, its hot set; the others stay cold
    ramshelf.check=MIB    clears so much, writes, compares, round after round: CHECKED <N>, or
                          DAMAGED
    ramshelf.keep=MIB     writes so much once, no page like another, and compares it with its
                          checksum, round after round: KEPT <N>, or DAMAGED
    ramshelf.count        counts, ten times a second: COUNT <N> <seconds since it began>
    ramshelf.secret=WORD  writes it all over the memory it dirties instead
    ramshelf.search=WORD  reads all its RAM, free pages too: FOUND <lines with the word> of <MiB
                          read>
    ramshelf.reboot       then reboots itself
    ramshelf.poweroff     then powers itself off

It powers off when the host presses its power button (virsh shutdown).
"""

import gzip
import lzma
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent
_DOWNLOADED = _CHECKOUT / ".cache/guest/kernel"
"""The directory where ``scripts/setup`` unpacks a kernel package.

It has boot/ and lib/modules/ (or usr/lib/modules/).
"""

_BUSYBOX = Path("/bin/busybox")
_MODULES = (
    "drivers/acpi/button",
    "drivers/input/evdev",
    *(
        f"drivers/virtio/virtio{part}"
        for part in ("_ring", "", "_pci_legacy_dev", "_pci_modern_dev", "_pci", "_balloon")
    ),
    "fs/fuse/fuse",
    "fs/fuse/virtiofs",
)
"""The modules for power button, balloon and share, in the order in which they need each other.

Where a kernel has them built in there is no such file.
"""

_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /dev /proc /mem
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o size=100% mem /mem
while read -r module; do insmod "/modules/$module" 2>/dev/null; done </modules/order

mib() {
  while read -r name figure unit; do
    [ "$name" = "$1:" ] && echo $((figure / 1024))
  done </proc/meminfo
}
# Each CPU writes its share of so many MiB, over what it has written before.
write() {
  cpus=$(nproc) cpu=0 writers=
  while [ $cpu -lt $cpus ]; do
    blocks=$(i=0; while [ $i -lt $((($1 + cpu) / cpus)) ]; do echo /block; i=$((i + 1)); done)
    cat /dev/null $blocks 1<>/mem/fill$cpu &
    writers="$writers $!"
    cpu=$((cpu + 1))
  done
  for writer in $writers; do wait $writer || return 1; done
}
dirty= late= rewrite= check= keep= count= secret= search= reboot= poweroff=
for word in $(cat /proc/cmdline); do
  case $word in
    ramshelf.dirty=*) dirty=${word#*=} ;;
    ramshelf.rewrite) rewrite=all ;;
    ramshelf.rewrite=*) rewrite=${word#*=} ;;
    ramshelf.check=*) check=${word#*=} ;;
    ramshelf.keep=*) keep=${word#*=} ;;
    ramshelf.count) count=1 ;;
    ramshelf.late=*) dirty=${word#*=} late=1 ;;
    ramshelf.secret=*) secret=${word#*=} ;;
    ramshelf.search=*) search=${word#*=} ;;
    ramshelf.reboot) reboot=1 ;;
    ramshelf.poweroff) poweroff=1 ;;
  esac
done
# Opened before the guest says that it is up: what is pressed from then on waits there to be read.
for button in /dev/input/event*; do
  [ -c "$button" ] || continue
  exec 3<"$button"
  { head -c 1 <&3 >/dev/null && poweroff -f; } &
  exec 3<&-
done
total=$(mib MemTotal)
echo "GUEST-UP $total"

# The kernel's own view of RAM (/dev/mem is closed): the program headers of /proc/kcore, of which
# those with a physical address are RAM.
if [ "$search" ]; then
  found=0 size=0
  headers=$(dd if=/proc/kcore bs=64 count=1 2>/dev/null | od -A n -t u2 -j 56 -N 2)
  od -A n -v -t u8 -w56 -j 64 -N $((headers * 56)) /proc/kcore >/headers
  while read -r kind offset address physical length rest; do
    [ "$physical" = 18446744073709551615 ] && continue
    case $offset-$length in *[!0-9-]*) continue ;; esac
    part="skip=$offset count=$length"
    lines=$(dd if=/proc/kcore iflag=skip_bytes,count_bytes $part bs=1M 2>/dev/null |
      grep -a -F -c "$search")
    found=$((found + lines)) size=$((size + length / 1048576))
  done </headers
  echo "FOUND $found of $size"
fi

if [ "$count" ]; then
  number=0
  while :; do
    number=$((number + 1))
    read -r seconds rest </proc/uptime
    echo "COUNT $number $seconds"
    sleep 0.1
  done &
fi

if [ "$keep" ]; then
  while [ $keep -gt 0 ]; do # the same block, turned each time by what is no multiple of a page
    turn=$((keep * 5003 % 1048576))
    tail -c +$((turn + 1)) /block
    head -c $turn /block
    keep=$((keep - 1))
  done >/mem/keep
  sum=$(md5sum </mem/keep) round=0
  while [ "$(md5sum </mem/keep)" = "$sum" ] || { echo DAMAGED; false; }; do
    round=$((round + 1))
    echo "KEPT $round"
    sleep 0.2
  done &
fi

# What is in the balloon does not count as total.
if [ "$late" ]; then
  while [ $(mib MemTotal) -ge $((total - 16)) ]; do sleep 0.2; done
  echo BALLOONED
  while [ $(mib MemTotal) -lt $((total - 4)) ]; do sleep 0.2; done
fi

if [ "$dirty" ]; then
  [ "$secret" ] && yes "$secret" | head -c 1048576 >/block
  [ "$dirty" = all ] && dirty=$(($(mib MemFree) - 16))
  write "$dirty" && echo "DIRTIED $dirty"
  [ "$rewrite" = all ] && rewrite=$dirty
  round=0
  while [ "$rewrite" ]; do
    head -c 1048576 /dev/urandom >/block
    write "$rewrite"
    round=$((round + 1))
    echo "ROUND $round"
  done
fi
if [ "$check" ]; then
  head -c 1048576 /dev/zero >/zero
  zeros=$(i=0; while [ $i -lt $check ]; do echo /zero; i=$((i + 1)); done)
  round=0
  while :; do
    head -c 1048576 /dev/urandom >/block
    blocks=$(i=0; while [ $i -lt $check ]; do echo /block; i=$((i + 1)); done)
    cat $zeros 1<>/mem/check
    for block in $blocks; do cat $block; sleep 0.02; done 1<>/mem/check
    cat $blocks | cmp - /mem/check || { echo DAMAGED; break; }
    round=$((round + 1))
    echo "CHECKED $round"
  done
fi
[ "$reboot" ] && reboot -f
[ "$poweroff" ] && poweroff -f
while :; do sleep 1000; done
"""


class GuestImageError(Exception):
    """Something is missing to make a guest image; the message says what in one sentence."""


def find_kernel() -> tuple[Path, Path]:
    """Return a kernel image and the directory of its modules.

    It is the downloaded one, else the newest installed. Raises GuestImageError.
    """
    for root in (_DOWNLOADED, Path("/")):
        kernels = sorted(root.glob("boot/vmlinuz-*"), key=_version)
        if kernels:
            release = kernels[-1].name.removeprefix("vmlinuz-")
            modules = [root / where / release for where in ("lib/modules", "usr/lib/modules")]
            return kernels[-1], next((path for path in modules if path.is_dir()), modules[0])
    raise GuestImageError(
        "No kernel for a guest: run `make setup`, or install a linux-image package."
    )


def _version(kernel: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", kernel.name))


def initramfs(modules: Path) -> bytes:
    """Return the compressed initramfs.

    It is a cpio "newc" (Documentation/driver-api/early-userspace/buffer-format). Raises
    GuestImageError.
    """
    if not _BUSYBOX.is_file():
        raise GuestImageError("No busybox for a guest: install busybox-static.")
    files: list[tuple[str, int, bytes]] = [
        ("bin", 0o040755, b""),
        ("modules", 0o040755, b""),
        ("bin/busybox", 0o100755, _BUSYBOX.read_bytes()),
        ("init", 0o100755, _INIT.encode()),
        # A guest's own /dev/urandom has to gather entropy first.
        ("block", 0o100644, os.urandom(1 << 20)),
    ]
    order = []
    for name in _MODULES:
        plain, packed = (modules / "kernel" / f"{name}{suffix}" for suffix in (".ko", ".ko.xz"))
        if plain.is_file():
            content = plain.read_bytes()
        elif packed.is_file():
            content = lzma.decompress(packed.read_bytes())
        else:
            continue
        order.append(plain.name)
        files.append((f"modules/{plain.name}", 0o100644, content))
    files.append(("modules/order", 0o100644, "".join(f"{name}\n" for name in order).encode()))
    return gzip.compress(b"".join(_cpio(files)), compresslevel=1, mtime=0)


def _cpio(files: Iterable[tuple[str, int, bytes]]) -> Iterable[bytes]:
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], start=1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        yield header + bytes(-len(header) % 4)
        yield content + bytes(-len(content) % 4)


def install(directory: Path) -> None:
    """Put ``vmlinuz`` and ``initramfs`` into ``directory``.

    Raises GuestImageError.
    """
    kernel, modules = find_kernel()
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.chmod(0o755)
    shutil.copyfile(kernel, directory / "vmlinuz")
    (directory / "initramfs").write_bytes(initramfs(modules))
    for name in ("vmlinuz", "initramfs"):
        (directory / name).chmod(0o644)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        install(Path(sys.argv[1]))
    except GuestImageError as error:
        sys.exit(str(error))
