#!/usr/bin/env python3
"""guest_image.py DIRECTORY: put a guest's kernel and initramfs there, readable by all users.

The guest is busybox. It reports over the serial port, and its kernel command line says what it does:

    (always)              GUEST-UP <MiB that it sees>
    ramshelf.dirty=MIB    writes random bytes to MIB of its memory, its CPUs each a share: DIRTIED <MIB>
    ramshelf.dirty=all    the same with all that is free, but a margin of 16 MiB
    ramshelf.rewrite      then writes the same pages anew, round after round: ROUND <N>
    ramshelf.rewrite=MIB  so many of them only, its hot set; the others stay cold
    ramshelf.poweroff     then powers itself off

It powers off when the host presses its power button (virsh shutdown).
"""

import gzip
import lzma
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent
_DOWNLOADED = _CHECKOUT / ".cache/guest/kernel"
"""Where ``scripts/setup`` unpacks a kernel package: boot/ and lib/modules/ (or usr/lib/modules/)."""

_BUSYBOX = Path("/bin/busybox")
_MODULES = ("drivers/acpi/button", "drivers/input/evdev")
"""For the power button; where a kernel has them built in there is no such file."""

_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /dev /proc /mem
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o size=100% mem /mem
for module in /modules/*; do insmod "$module" 2>/dev/null; done

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
dirty= rewrite= poweroff=
for word in $(cat /proc/cmdline); do
  case $word in
    ramshelf.dirty=*) dirty=${word#*=} ;;
    ramshelf.rewrite) rewrite=all ;;
    ramshelf.rewrite=*) rewrite=${word#*=} ;;
    ramshelf.poweroff) poweroff=1 ;;
  esac
done
echo "GUEST-UP $(mib MemTotal)"

for button in /dev/input/event*; do
  [ -c "$button" ] && { head -c 1 "$button" >/dev/null && poweroff -f; } &
done

if [ "$dirty" ]; then
  head -c 1048576 /dev/urandom >/block
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
[ "$poweroff" ] && poweroff -f
while :; do sleep 1000; done
"""


class GuestImageError(Exception):
    """What is missing to make a guest image, in one sentence."""


def find_kernel() -> tuple[Path, Path]:
    """A kernel image and the directory of its modules: the downloaded one, else the newest installed."""
    for root in (_DOWNLOADED, Path("/")):
        kernels = sorted(root.glob("boot/vmlinuz-*"), key=_version)
        if kernels:
            release = kernels[-1].name.removeprefix("vmlinuz-")
            modules = [root / where / release for where in ("lib/modules", "usr/lib/modules")]
            return kernels[-1], next((path for path in modules if path.is_dir()), modules[0])
    raise GuestImageError("No kernel for a guest: run `make setup`, or install a linux-image package.")


def _version(kernel: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", kernel.name))


def initramfs(modules: Path) -> bytes:
    """The compressed initramfs (cpio "newc"; Documentation/driver-api/early-userspace/buffer-format)."""
    if not _BUSYBOX.is_file():
        raise GuestImageError("No busybox for a guest: install busybox-static.")
    files: list[tuple[str, int, bytes]] = [
        ("bin", 0o040755, b""),
        ("modules", 0o040755, b""),
        ("bin/busybox", 0o100755, _BUSYBOX.read_bytes()),
        ("init", 0o100755, _INIT.encode()),
    ]
    for name in _MODULES:
        plain, packed = (modules / "kernel" / f"{name}{suffix}" for suffix in (".ko", ".ko.xz"))
        if plain.is_file():
            files.append((f"modules/{plain.name}", 0o100644, plain.read_bytes()))
        elif packed.is_file():
            files.append((f"modules/{plain.name}", 0o100644, lzma.decompress(packed.read_bytes())))
    return gzip.compress(b"".join(_cpio(files)), compresslevel=1, mtime=0)


def _cpio(files: Iterable[tuple[str, int, bytes]]) -> Iterable[bytes]:
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], start=1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        yield header + bytes(-len(header) % 4)
        yield content + bytes(-len(content) % 4)


def install(directory: Path) -> None:
    """Put ``vmlinuz`` and ``initramfs`` into ``directory``; raises GuestImageError."""
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
