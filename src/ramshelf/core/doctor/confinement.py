"""What keeps one guest's QEMU from another's: libvirt's security labels, and the user it runs as.

All guests run as one user by default. One QEMU is kept from reading the memory of another
(ptrace(2), its files on the store) or killing it only by a mandatory access control (AppArmor,
SELinux), under which each guest has a label of its own, or by a user of its own for each guest.
"""

from xml.parsers.expat import ExpatError, ParserCreate

from ramshelf.core.record import dataclass

MANDATORY = frozenset({"apparmor", "selinux"})
"""libvirt's security models that confine; ``dac`` gives QEMU a user, ``none`` does nothing."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a running guest's labels say.

    ``confined``: one of them confines it. ``uid`` is its user's number where a label says so.
    """

    confined: bool = False
    uid: int | None = None


def parse_labels(text: str) -> Labels:
    """Return the labels in live domain XML, where libvirt writes what it has chosen.

    A label lies in ``<seclabel type='dynamic' model='apparmor'><label>...</label>``; the one of
    ``dac`` is ``+UID:+GID``. The text is read as libvirt reads it: a prefix of a namespace need not
    be declared. Text that is no XML has no labels.
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
