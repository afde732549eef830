"""The mount table: the truth about where the store is (proc_pid_mountinfo(5))."""

from __future__ import annotations

from ramshelf.core.record import dataclass

_OCTAL = frozenset("01234567")


def unescape(field: str) -> str:
    r"""Undo the kernel's and fstab's octal escapes (``\040`` for a space)."""
    if "\\" not in field:
        return field
    first, *parts = field.split("\\")
    return first + "".join(
        (
            chr(int(part[:3], 8)) + part[3:]
            if len(part) > 2 and _OCTAL.issuperset(part[:3])
            else f"\\{part}"
        )
        for part in parts
    )


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    mount_id: int
    parent_id: int
    device: tuple[int, int]
    root: str
    mount_point: str
    options: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        """Whether the mount or its file system refuses writes."""
        return "ro" in self.options or "ro" in self.super_options


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Return all mounts in the order in which they were made: a later one hides an earlier one."""
    mounts = []
    # str.splitlines also breaks at characters that the kernel leaves as they are in a path.
    for line in text.split("\n"):
        left, separator, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 3:
            continue
        major, _, minor = fields[2].partition(":")
        mounts.append(
            Mount(
                mount_id=int(fields[0]),
                parent_id=int(fields[1]),
                device=(int(major), int(minor)),
                root=unescape(fields[3]),
                mount_point=unescape(fields[4]),
                options=tuple(fields[5].split(",")),
                fstype=tail[0],
                source=unescape(tail[1]),
                super_options=tuple(tail[2].split(",")),
            )
        )
    return tuple(mounts)


def normal(path: str) -> str:
    """Return an absolute path as the kernel shows it: without needless slashes and dots.

    Other paths stay as they are.
    """
    if not path.startswith("/"):
        return path
    return "/" + "/".join(part for part in path.split("/") if part not in {"", "."})


def is_below(path: str, directory: str) -> bool:
    """Tell whether ``path`` is ``directory`` or lies below it; both are absolute and normal."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def covering(mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """Return the mount that ``path`` lies on: the deepest, and of equals the last one made."""
    best: Mount | None = None
    for mount in mounts:
        if is_below(path, mount.mount_point) and (
            best is None or len(mount.mount_point) >= len(best.mount_point)
        ):
            best = mount
    return best


def shown(mounts: tuple[Mount, ...], path: str) -> tuple[tuple[int, int], str] | None:
    """Return which file system ``path`` lies on and its path there; None where no mount covers it.

    The file system is given by its device, the path as in a mount's ``root``.
    """
    mount = covering(mounts, path)
    if mount is None:
        return None
    below = path[len(mount.mount_point.rstrip("/")) :]
    return mount.device, f"{mount.root.rstrip('/')}{below}".rstrip("/") or "/"
