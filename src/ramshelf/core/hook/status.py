"""libvirt's hook as it is found on a host."""

from dataclasses import dataclass, field

from ramshelf.core.hook.bypass import Bypass


@dataclass(frozen=True, kw_only=True)
class HookStatus:
    """libvirt's hook as installed; ``foreign``: something has its place that is not ramshelf's.

    ``seen``: whether the running libvirtd calls it, None where unknown. ``problem`` is half a
    sentence that says why it does not work, '' where it does or nobody has tried.
    """

    installed: bool
    current: bool
    executable: bool
    seen: bool | None
    foreign: bool = False
    problem: str = ""
    bypass: Bypass = field(default_factory=Bypass)
