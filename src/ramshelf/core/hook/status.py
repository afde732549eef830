"""libvirt's hook as it is found on a host."""

from dataclasses import field

from ramshelf.core.hook.bypass import Bypass
from ramshelf.core.record import dataclass


@dataclass(frozen=True, kw_only=True)
class HookStatus:
    """libvirt's hook as it is installed.

    ``foreign``: something that is not ramshelf's has its place. ``seen``: whether the running
    libvirtd calls it, None where that is not known. ``problem`` is half a sentence that says why it
    does not work, '' where it works or nobody has tried. ``view`` are half sentences, each of
    something that it sees otherwise than this command does (core/migration/view.py).
    """

    installed: bool
    current: bool
    executable: bool
    seen: bool | None
    foreign: bool = False
    problem: str = ""
    view: tuple[str, ...] = ()
    bypass: Bypass = field(default_factory=Bypass)
