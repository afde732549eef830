"""Domain XML at random, to vary what a guest's memory may be made of.

Its parts come in any order, twice, not at all, or as nonsense. libvirt accepts most of the
documents; one that it refuses says nothing.
"""

from random import Random

_NUMBERS = (
    "0",
    "1",
    "1023",
    "65536",
    "262144",
    "262145",
    "18446744073709551615",
    "-1",
    "x",
    "",
    " 65536 ",
    "0x10000",
)
_UNITS = ("KiB", "k", "KB", "MiB", "M", "MB", "GiB", "b", "bytes", "TiB", "P", "EiB", "parsec", "")
_ODD = (
    " ",
    "'",
    '"',
    "&amp;",
    "&lt;",
    "]]>",
    "é",
    "\N{PILE OF POO}",
    "\N{NEXT LINE}",
    "\t",
    "&#x2028;",
    "%s",
    "$x",
    "-",
)
_TAGS = (
    "x",
    "a:x",
    "b:y",
    "a:b:c",
    ":y",
    "y:",
    "\N{PILE OF POO}",
    "memory",
    "metadata",
    "domain",
    "é",
)
_DEFAULT = " xmlns='urn:u'"
_TEXTS = (
    *("", "t", "&amp;", "&foo;", "&#13;", "]]&gt;", "\N{NEXT LINE}"),
    *("<![CDATA[</metadata><memory>]]>", "<!-- </metadata> -->", "<?p </metadata>?>"),
)


def random_domain(rng: Random) -> str:
    """Return the domain XML of a QEMU guest that is never started."""
    cells = rng.choice((0, 0, 0, 1, 1, 2, 3))
    devices = [
        _memory_device(rng, cells) for _ in range(rng.choice((0, 0, 1, 1, 2)) if cells else 0)
    ]
    # What libvirt adds by itself needs a bus, which not every machine has.
    bare = (
        ["<controller type='usb' model='none'/>", "<memballoon model='none'/>"]
        if rng.random() < 0.5
        else []
    )
    parts = [
        f"<name>{_name(rng)}</name>",
        _memory(rng),
        f"<vcpu>{max(cells, rng.choice((1, 1, 2)))}</vcpu>",
        _os(rng),
        f"<devices>{''.join(_shuffled(rng, [*devices, *_others(rng), *bare]))}</devices>",
    ]
    parts += [_cpu(rng, cells)] if cells or rng.random() < 0.1 else []
    parts += [_max_memory(rng)] if devices or rng.random() < 0.1 else []
    parts += [_backing(rng)] if rng.random() < 0.8 else []
    parts += [_metadata(rng)] if rng.random() < 0.5 else []
    parts += [f"<title>{_text(rng)}&lt;metadata&gt;</title>"] if rng.random() < 0.1 else []
    parts += (
        [f"<description>{_text(rng)}&lt;/metadata&gt;</description>"] if rng.random() < 0.1 else []
    )
    if rng.random() < 0.05:
        parts.append(rng.choice(parts))
    if rng.random() < 0.3:
        rng.shuffle(parts)
    separator = rng.choice(("", "\n  ", "<!-- <memory>1</memory> -->", "<?x <memory>?>", "text"))
    namespaces = rng.choice(
        ("", "", " xmlns:a='urn:a'", " xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'")
    )
    if "xmlns:qemu" in namespaces:
        parts.append(f"<qemu:commandline><qemu:arg value='-{_text(rng)}'/></qemu:commandline>")
    return _mangled(
        rng, f"{_head(rng)}<domain type='qemu'{namespaces}>{separator.join(parts)}</domain>"
    )


def _head(rng: Random) -> str:
    heads = (
        "<!DOCTYPE domain SYSTEM 'x'>",
        "<!DOCTYPE domain [<!ENTITY foo 'bar'>]>",
        "<?xml version='1.0'?>",
    )
    return rng.choice(heads) if rng.random() < 0.3 else ""


def _mangled(rng: Random, xml: str) -> str:
    """Return the XML, now and then with a piece missing, doubled or moved."""
    if rng.random() > 0.05:
        return xml
    begin = rng.randrange(len(xml))
    end = begin + rng.randrange(40)
    to = rng.randrange(len(xml))
    return rng.choice(
        (xml[:begin] + xml[end:], xml[:end] + xml[begin:], xml[:to] + xml[begin:end] + xml[to:])
    )


def _name(rng: Random) -> str:
    letters = [
        rng.choice(_ODD) if rng.random() < 0.1 else rng.choice("abcdefgh")
        for _ in range(rng.randint(1, 30))
    ]
    return "".join(letters)


def _text(rng: Random) -> str:
    return "".join(rng.choice((*_ODD, "a", "b")) for _ in range(rng.randrange(5))).replace(
        "'", "&apos;"
    )


def _size(rng: Random, kib: int) -> tuple[str, str]:
    """Return a number and its unit, mostly of about ``kib`` KiB, written in one way or another."""
    if rng.random() < 0.02:
        return rng.choice(_NUMBERS), rng.choice(_UNITS)
    kib += rng.choice((0, 0, 0, 1, -1, 512))
    return rng.choice(
        (
            (str(kib), "KiB"),
            (str(kib), ""),
            (str(kib // 1024), "MiB"),
            (str(kib * 1024), "b"),
            (str(kib), "k"),
        )
    )


def _element(rng: Random, tag: str, kib: int) -> str:
    number, unit = _size(rng, kib)
    return f"<{tag} unit='{unit}'>{number}</{tag}>" if unit else f"<{tag}>{number}</{tag}>"


def _memory(rng: Random) -> str:
    kib = rng.choice((65536, 131072, 262144, 393216, 524288, 1048576))
    memory = _element(rng, "memory", kib) if rng.random() < 0.95 else ""
    return memory + (_element(rng, "currentMemory", kib // 2) if rng.random() < 0.2 else "")


def _max_memory(rng: Random) -> str:
    slots = rng.choice(("0", "1", "4", "16")) if rng.random() < 0.3 else "8"
    number, unit = _size(rng, rng.choice((1048576, 2097152, 4194304)))
    return f"<maxMemory slots='{slots}' unit='{unit or 'KiB'}'>{number}</maxMemory>"


def _os(rng: Random) -> str:
    arch = "i686" if rng.random() < 0.1 else "x86_64"
    common, rare = ("pc", "q35", "pc-i440fx-2.11", "pc-q35-7.2"), ("isapc", "microvm", "none")
    machine = rng.choice(common if rng.random() < 0.95 else rare)
    return f"<os><type arch='{arch}' machine='{machine}'>hvm</type></os>"


def _backing(rng: Random) -> str:
    children = []
    for chance, texts in (
        (
            0.5,
            (
                "<source type='file'/>",
                "<source type='file'/>",
                "<source type='memfd'/>",
                "<source type='anonymous'/>",
            ),
        ),
        (0.5, ("<access mode='shared'/>", "<access mode='private'/>")),
        (
            0.3,
            (
                "<allocation mode='immediate'/>",
                "<allocation mode='ondemand'/>",
                "<allocation threads='2'/>",
            ),
        ),
        (0.2, ("<discard/>",)),
        (0.2, ("<locked/>",)),
        (0.1, ("<nosharepages/>",)),
        (0.1, ("<unknown><source type='file'/></unknown>", "<!-- <source type='file'/> -->")),
        (0.2, (_huge_pages(rng),)),
    ):
        if rng.random() < chance:
            children.append(rng.choice(texts))
    if children and rng.random() < 0.05:
        children.append(rng.choice(children))
    return f"<memoryBacking>{''.join(_shuffled(rng, children))}</memoryBacking>"


def _huge_pages(rng: Random) -> str:
    pages = []
    for _ in range(rng.choice((0, 1, 1, 2))):
        size, unit = rng.choice(
            (("2048", "KiB"), ("2", "MiB"), ("4", "KiB"), ("1", "GiB"), ("4096", "b"))
        )
        nodes = (
            f" nodeset='{rng.choice(('0', '1', '0-1', '0-2,^1', '2', '0,2'))}'"
            if rng.random() < 0.5
            else ""
        )
        pages.append(f"<page size='{size}' unit='{unit}'{nodes}/>")
    return f"<hugepages>{''.join(pages)}</hugepages>"


def _access(rng: Random) -> str:
    return rng.choice(("shared", "private"))


def _cpu(rng: Random, cells: int) -> str:
    numbered = rng.random() < 0.7
    made = []
    for number in range(cells):
        size, unit = _size(rng, rng.choice((65536, 131072, 131073)))
        attributes = [f"cpus='{number}'", f"memory='{size}'"]
        attributes += [f"unit='{unit}'"] if unit else []
        attributes += [f"id='{number}'"] if numbered else []
        attributes += [f"memAccess='{_access(rng)}'"] if rng.random() < 0.3 else []
        attributes += [f"discard='{rng.choice(('yes', 'no'))}'"] if rng.random() < 0.1 else []
        made.append(f"<cell {' '.join(_shuffled(rng, attributes))}/>")
    if numbered:
        rng.shuffle(made)
    return f"<cpu><numa>{''.join(made)}</numa></cpu>" if made else "<cpu mode='host-model'/>"


def _memory_device(rng: Random, cells: int) -> str:
    model = rng.choice(("dimm", "dimm", "virtio-mem", "nvdimm", "virtio-pmem", "sgx-epc"))
    attributes = [f" access='{_access(rng)}'"] if rng.random() < 0.3 else []
    attributes += [f" discard='{rng.choice(('yes', 'no'))}'"] if rng.random() < 0.1 else []
    source = ""
    if model in {"nvdimm", "virtio-pmem"}:
        source = "<source><path>/nonexistent</path></source>"
    elif rng.random() < 0.3:
        size, unit = rng.choice((("2048", "KiB"), ("4", "KiB"), ("1", "GiB"), ("2", "MiB")))
        nodes = "<nodemask>0</nodemask>" if rng.random() < 0.3 else ""
        source = f"<source>{nodes}<pagesize unit='{unit}'>{size}</pagesize></source>"
    target = [_element(rng, "size", rng.choice((65536, 131072, 262144)))]
    target += (
        [f"<node>{rng.randrange(cells)}</node>"]
        if rng.random() < 0.9 and model != "virtio-pmem"
        else []
    )
    target += (
        ["<block unit='KiB'>2048</block>", "<requested unit='KiB'>65536</requested>"]
        if model == "virtio-mem"
        else []
    )
    alias = "<alias name='ua-mine'/>" if rng.random() < 0.1 else ""
    return (
        f"<memory model='{model}'{''.join(attributes)}>{source}"
        f"<target>{''.join(_shuffled(rng, target))}</target>{alias}</memory>"
    )


def _others(rng: Random) -> list[str]:
    address = "<address domain='0' bus='1' slot='0' function='0'/>"
    nvme = f"<source type='pci' managed='no' namespace='1'>{address}</source>"
    mdev = "<source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source>"
    disk = (
        "<disk type='{}'><driver name='qemu' type='{}'/>{}<target dev='vda' bus='virtio'/></disk>"
    )
    chain = f"<backingStore type='nvme'><format type='raw'/>{nvme}<backingStore/></backingStore>"
    return [
        device
        for chance, device in (
            (0.05, f"<hostdev mode='subsystem' type='mdev' model='vfio-pci'>{mdev}</hostdev>"),
            (0.05, disk.format("nvme", "raw", nvme)),
            (0.05, disk.format("file", "qcow2", f"<source file='/nonexistent'/>{chain}")),
            (0.05, "<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>"),
            (0.1, "<interface type='user'/>"),
            (0.05, "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"),
        )
        if rng.random() < chance
    ]


def _metadata(rng: Random) -> str:
    children = "".join(_odd_element(rng, 3) for _ in range(rng.randrange(3)))
    return (
        "<metadata><a:top "
        f"xmlns:a='urn:t'{rng.choice(('', _DEFAULT))}>{children}</a:top></metadata>"
    )


def _odd_element(rng: Random, depth: int) -> str:
    tag = rng.choice(_TAGS)
    attribute = f" {rng.choice(_TAGS)}='{_text(rng)}'" if rng.random() < 0.3 else ""
    inner = "".join(_odd_element(rng, depth - 1) for _ in range(rng.randrange(2))) if depth else ""
    return f"<{tag}{attribute}>{rng.choice(_TEXTS) if rng.random() < 0.5 else ''}{inner}</{tag}>"


def _shuffled(rng: Random, items: list[str]) -> list[str]:
    return rng.sample(items, len(items)) if rng.random() < 0.5 else items
