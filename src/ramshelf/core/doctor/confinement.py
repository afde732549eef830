"""What keeps one guest's QEMU from another's: libvirt's security labels, and the user that it runs as.

All guests run as one user by default. Only a mandatory access control (AppArmor, SELinux), under
which each guest has a label of its own, or a user of its own for each guest keeps one QEMU from
reading the memory of another (ptrace(2), its files on the store) or killing it.
"""

from dataclasses import dataclass
from xml.parsers.expat import ExpatError, ParserCreate

MANDATORY = frozenset({"apparmor", "selinux"})
"""libvirt's security models that confine; ``dac`` gives QEMU a user, ``none`` does nothing."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A running guest's: whether one confines it, and its user's number where a label says so."""

    confined: bool = False
    uid: int | None = None


def parse_labels(text: str) -> Labels:
    """The labels in live domain XML, where libvirt writes what it has chosen; none in what is no XML.

    A label lies in ``<seclabel type='dynamic' model='apparmor'><label>...</label>``; the one of
    ``dac`` is ``+UID:+GID``. Read as libvirt reads it: a prefix of a namespace need not be
    declared.
    """
    path: list[str] = []
    model = ""
    found: dict[str, str] = {}

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal model
        path.append(name)
        if path[1:] == ["seclabel"]:
            model = attributes.get("model", "") if attributes.get("type") != "none" else ""

    def end(_name: str) -> None:
        path.pop()

    def characters(data: str) -> None:
        if path[1:] == ["seclabel", "label"] and model:
            found[model] = found.get(model, "") + data

    parser = ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(text, True)
    except ExpatError:
        return Labels()
    return Labels(
        confined=any(found.get(each, "").strip() not in {"", "unconfined"} for each in MANDATORY),
        uid=_uid(found.get("dac", "")),
    )


def _uid(label: str) -> int | None:
    number = label.strip().partition(":")[0].removeprefix("+")
    return int(number) if number.isascii() and number.isdecimal() else None
