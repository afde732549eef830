"""What a support bundle may say: files and logs of this host without their secrets.

Where a format is known, a list names what may be shown and all else is masked; so what a later
version of Nova or libvirt adds is masked too. Comments are masked: old passwords live there.
"""

import json
import re
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape

from lxml import etree

from ramshelf.core.domain.xml import without_metadata
from ramshelf.core.errors import RamshelfError
from ramshelf.core.files.qemuconf import parse_qemu_conf
from ramshelf.core.secrets import HIDDEN, hide, is_secret, scrub

_SHORTEST = 4
"""The fewest characters of a secret that is looked for everywhere: shorter ones are words."""

_SHOWN_OPTIONS = frozenset(
    {
        "DEFAULT.compute_driver",
        "DEFAULT.cpu_allocation_ratio",
        "DEFAULT.host",
        "DEFAULT.initial_ram_allocation_ratio",
        "DEFAULT.ram_allocation_ratio",
        "DEFAULT.reserved_host_memory_mb",
        "DEFAULT.reserved_huge_pages",
        "DEFAULT.resume_guests_state_on_host_boot",
        "compute.cpu_shared_set",
        "compute.provider_config_location",
        "filter_scheduler.enabled_filters",
        "libvirt.connection_uri",
        "libvirt.cpu_mode",
        "libvirt.file_backed_memory",
        "libvirt.live_migration_permit_auto_converge",
        "libvirt.live_migration_permit_post_copy",
        "libvirt.mem_stats_period_seconds",
        "libvirt.num_pcie_ports",
        "libvirt.virt_type",
        "placement.auth_type",
        "placement.auth_url",
        "placement.endpoint_override",
        "placement.project_domain_name",
        "placement.project_name",
        "placement.region_name",
        "placement.user_domain_name",
        "placement.valid_interfaces",
        "workarounds.disable_libvirt_livesnapshot",
    }
)
"""Options of Nova's that bear on guests' memory, as ``section.key``."""

_SHOWN_IN_QEMU_CONF = frozenset(
    {
        "auto_dump_path",
        "cgroup_controllers",
        "clear_emulator_capabilities",
        "dynamic_ownership",
        "group",
        "hugetlbfs_mount",
        "max_core",
        "max_files",
        "max_processes",
        "memory_backing_dir",
        "namespaces",
        "remember_owner",
        "seccomp_sandbox",
        "security_default_confined",
        "security_driver",
        "security_require_confined",
        "stdio_handler",
        "user",
    }
)

_PLAIN_FILE_SYSTEMS = frozenset(
    {"btrfs", "ext2", "ext3", "ext4", "hugetlbfs", "none", "proc", "swap", "sysfs", "tmpfs"}
    | {"vfat", "xfs", "zfs", "cgroup2", "devtmpfs", "overlay"}
)
"""File systems whose options hold no secret; those of a network do (cifs, ceph, davfs)."""

_SIZES = frozenset({"unit"})
_ATTRIBUTES = {
    "access": {"mode"},
    "address": {"type"},
    "allocation": {"mode", "threads"},
    "backend": {"type", "version"},
    "block": _SIZES,
    "cell": {"cpus", "discard", "id", "memAccess", "memory", "unit"},
    "controller": {"index", "model", "type"},
    "cpu": {"check", "match", "mode"},
    "current": _SIZES,
    "currentMemory": _SIZES,
    "disk": {"device", "type"},
    "domain": {"id", "type"},
    "driver": {"cache", "discard", "io", "iommu", "name", "queues", "type"},
    "feature": {"name", "policy"},
    "filesystem": {"accessmode", "type"},
    "graphics": {"type"},
    "hard_limit": _SIZES,
    "hostdev": {"managed", "mode", "type"},
    "interface": {"type"},
    "launchSecurity": {"type"},
    "maxMemory": {"slots", "unit"},
    "memballoon": {"autodeflate", "freePageReporting", "model"},
    "memnode": {"cellid", "mode", "nodeset"},
    "memory": {"access", "discard", "dumpCore", "mode", "model", "nodeset", "placement", "unit"},
    "model": {"fallback", "heads", "ram", "type", "vgamem", "vram"},
    "page": {"nodeset", "size", "unit"},
    "requested": _SIZES,
    "seclabel": {"model", "relabel", "type"},
    "shmem": {"role"},
    "size": _SIZES,
    "soft_limit": _SIZES,
    "source": {"type"},
    "stats": {"period"},
    "sysinfo": {"type"},
    "tpm": {"model"},
    "type": {"arch", "machine"},
    "vcpu": {"cpuset", "current", "placement"},
}
"""The attributes of domain XML that are shown, by element."""

_TEXTS = frozenset(
    {"block", "current", "currentMemory", "emulator", "hard_limit", "iothreads", "label"}
    | {"maxMemory", "memory", "model", "name", "node", "nodemask", "requested", "size"}
    | {"soft_limit", "swap_hard_limit", "type", "uuid", "vcpu"}
)
"""The elements of domain XML whose text is shown."""

_SHOWN_TO_QEMU = frozenset(
    {"-S", "-accel", "-cpu", "-display", "-m", "-machine", "-msg", "-name", "-no-shutdown"}
    | {"-nodefaults", "-no-user-config", "-numa", "-overcommit", "-rtc", "-sandbox", "-smp"}
    | {"-uuid"}
)
"""QEMU's options that are shown with what follows them."""

_OBJECT = re.compile(r"-object '?\{?\"?(qom-type\":\")?memory-backend-")
_CERTAIN = 8
"""The characters of a secret that is hidden also within a word."""

_SETTING = re.compile(r"^[# \t]*([\w.-]+)[ \t]*[=:][ \t]*(.*)$", re.MULTILINE)
_IN_URL = re.compile(r"://[^/?#\s\"'@:]*:([^/?#\s\"']*)@")
_OF_A_HOST = re.compile(r"[/,][^/?#\s\"'@:,]*:([^/?#\s\"'@,]*)@")
"""The password of one of several hosts in a URL, as oslo.messaging has it."""

_ENVIRONMENT = re.compile(r"^(\s*(?:Environment|SetCredential\w*)\s*=)(?:.*\\\n)*.*", re.MULTILINE)
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")
_QEMU_SAYS = re.compile(r"(?>[\w./-]*?qemu)[\w./-]*+: ")
_DAEMON_LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:.]+\+\d{4}: \d+: (info|warning|error) : ")
_MONITOR = "QEMU_MONITOR_"
"""What is in libvirt's messages that hold QMP commands; they are no more than information."""


def mask_settings(text: str, own: frozenset[str]) -> str:
    """Return a file in oslo.config's format with the values that may be shown, line for line.

    ``own`` are the options that ramshelf reads, as ``section.key``.
    """
    return "".join(f"{line}\n" for line in _settings(text, own | _SHOWN_OPTIONS))


def _settings(text: str, shown: frozenset[str]) -> Iterator[str]:
    section, key = "", ""
    for line in text.splitlines():
        head = re.fullmatch(r"\[([\w.-]+)\]\s*", line)
        setting = re.fullmatch(r"([\w.-]+)\s*[=:]\s*(.*)", line)
        if head:
            section, key = head[1] if head[1].upper() != "DEFAULT" else "DEFAULT", ""
            section = section if section == "DEFAULT" else section.lower()
            yield f"[{head[1]}]"
        elif setting:
            key = f"{section}.{setting[1]}"
            yield f"{setting[1]} = {_value(key, setting[2], shown)}"
        elif line[:1] in {" ", "\t"} and line.strip():
            yield f"  {_value(key, line.strip(), shown)}"
        else:
            yield "" if not line.strip() else f"# {HIDDEN}"


def _value(name: str, value: str, shown: frozenset[str]) -> str:
    if name not in shown or is_secret(name.partition(".")[2]):
        return HIDDEN if value else ""
    return hide(value)


def secrets_of_settings(text: str) -> frozenset[str]:
    """Return the secrets in a file in oslo.config's format: values by their names, and in URLs."""
    found = {
        value
        for key, value in _SETTING.findall(text)
        if is_secret(key) and not key.endswith(_ABOUT_SECRETS)
    }
    found |= {*_IN_URL.findall(text), *_OF_A_HOST.findall(text)}
    return frozenset(each for each in (value.strip("\"' ") for value in found) if _long(each))


def without(text: str, secrets: Iterable[str]) -> str:
    """Return a text without these secrets, however JSON and XML write them.

    Short ones are hidden where they stand as words, others wherever they are.
    """
    forms = {form for each in secrets for form in (each, json.dumps(each)[1:-1], escape(each))}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _CERTAIN:
            text = text.replace(form, HIDDEN)
    return hide(text, {form for form in forms if len(form) < _CERTAIN})


def _long(value: str) -> bool:
    return len(value) >= _SHORTEST and value.lower() not in _KNOWN


def mask_qemu_conf(text: str) -> str:
    """Return the settings of libvirt's qemu.conf, those that may be shown with their values."""
    try:
        values = parse_qemu_conf(text)
    except RamshelfError as error:
        return f"# {error.sentence}\n"
    return "".join(
        f"{key} = {value!r}\n" if key in _SHOWN_IN_QEMU_CONF else f"{key} = {HIDDEN}\n"
        for key, value in values.items()
    )


def mask_fstab(text: str) -> str:
    """Return fstab(5) with the options of file systems whose options hold no secret."""
    lines = []
    for line in text.splitlines():
        fields = line.split()
        if not fields or line.lstrip().startswith("#"):
            lines.append(f"# {HIDDEN}" if fields else "")
            continue
        if len(fields) > 2 and fields[2] not in _PLAIN_FILE_SYSTEMS:
            fields[3:4] = [HIDDEN]
        lines.append(scrub(" ".join(fields)))
    return "\n".join(lines) + "\n"


def mask_mounts(text: str) -> str:
    """Return /proc/self/mountinfo without what the super block of a network's file system says."""
    lines = []
    for line in text.splitlines():
        mount, _, rest = line.partition(" - ")
        fields = rest.split(" ")
        if fields[0] not in _PLAIN_FILE_SYSTEMS:
            fields[2:] = [HIDDEN]
        lines.append(scrub(f"{mount} - {' '.join(fields)}"))
    return "\n".join(lines) + "\n"


def mask_domain(xml: str) -> str:
    """Return domain XML with the attributes and texts that may be shown.

    <metadata>, comments and what libvirt passes to QEMU as it stands are left out. Raises
    ``lxml.etree.XMLSyntaxError`` for what is no XML.
    """
    root = _parse(xml)
    for element in list(root.iter(etree.Element)):
        tag = str(element.tag)
        if tag.startswith("{"):
            element.clear()
            continue
        for name in element.attrib:
            if name not in _ATTRIBUTES.get(tag, ()):
                element.set(name, HIDDEN)
        if element.text and element.text.strip() and tag not in _TEXTS:
            element.text = HIDDEN
        if element.tail and element.tail.strip():
            element.tail = None
    return hide(etree.tostring(root, encoding="unicode")) + "\n"


def secrets_of_domain(xml: str) -> frozenset[str]:
    """Return the secrets in domain XML (or libvirt's record of a guest), to be hidden elsewhere.

    These are passwords, what the firmware is given (sysinfo, fw_cfg: cloud-init's data may be in
    it), and words of what is passed to QEMU as it stands. What says which make the guest is, as
    Nova has it for each, is no secret, nor is the guest's UUID.
    """
    try:
        root = _parse(xml)
    except (etree.XMLSyntaxError, RamshelfError):
        return frozenset()
    found: set[str] = set()
    option = ""
    for element in root.iter(etree.Element):
        tag, text = etree.QName(element).localname, element.text or ""
        found |= {str(value) for name, value in element.attrib.items() if is_secret(str(name))}
        value = element.get("value", "")
        if tag == "arg":
            if option in _GIVEN or "secret" in value:
                found |= set(re.split(r"[\s,=:;\"'{}]+", value))
            option = value
        if tag == "env":
            found.add(value)
        given = tag == "entry" and element.get("name") not in _OF_THE_MAKE
        if given or tag in {"cookie", "cookies"} or is_secret(tag):
            found |= {line.strip() for line in text.splitlines()} | set(text.split())
    return frozenset(filter(_long, found - {element.text or "" for element in root.iter("uuid")}))


_GIVEN = frozenset({"-append", "-fw_cfg", "-smbios"})
"""QEMU's options that hand something to the guest."""

_OF_THE_MAKE = frozenset(
    {"date", "family", "manufacturer", "product", "release", "uuid", "vendor", "version"}
)
"""The entries of sysinfo that say which make the guest is."""

_KNOWN = frozenset({"name", "true", "false", "file", "data", "passphrase", "secret", "string"})
_KNOWN |= {"<none>"}
"""Words that are no secrets, wherever they stand."""

_ABOUT_SECRETS = ("_required", "_roles")
"""The ends of the names of settings that are about secrets and hold none, as Nova has them."""


def _parse(xml: str) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        remove_comments=True,
        remove_pis=True,
        remove_blank_text=False,
    )
    return etree.fromstring(without_metadata(xml.encode(errors="surrogateescape")), parser)


def mask_qemu_log(text: str) -> str:
    """Return libvirt's log of a guest: what libvirt and QEMU say, and options that may be shown.

    Of the environment and of the command line all else is masked. Lines that neither begins, as of
    other programs that write there, are left out.
    """
    return "".join(f"{line}\n" for line in _qemu_lines(text))


def _qemu_lines(text: str) -> Iterator[str]:
    starting = left_out = 0
    for line in text.splitlines():
        told = line.removesuffix("\\").rstrip()
        option, _, _ = told.partition(" ")
        if _LOG_LINE.match(line):
            starting = ": starting up" in line
            yield scrub(told)
        elif starting:
            if option.startswith("-"):
                shown = option in _SHOWN_TO_QEMU or _OBJECT.match(told)
                yield scrub(told) if shown else f"{option} {HIDDEN}"
            elif told.startswith("/"):
                yield told
            else:
                yield f"{told.partition('=')[0]}={HIDDEN}" if "=" in told else HIDDEN
            starting = line.endswith("\\")
        elif _QEMU_SAYS.match(line):
            yield scrub(re.sub(r"(-fw_cfg|-smbios|-append|string=).*", rf"\1 {HIDDEN}", line))
        else:
            left_out += 1
    if left_out:
        yield f"({left_out} other lines are left out)"


def mask_daemon_log(text: str) -> str:
    """Return what a daemon of libvirt's has logged as information, warning or error.

    Debug messages hold whole XML documents and QMP commands, and some information holds the latter;
    they are left out.
    """
    lines = text.splitlines()
    kept = [scrub(line) for line in lines if _DAEMON_LINE.match(line) and _MONITOR not in line]
    if len(kept) < len(lines):
        kept.append(f"({len(lines) - len(kept)} other lines are left out)")
    return "".join(f"{line}\n" for line in kept)


def mask_unit(text: str) -> str:
    """Return a unit of systemd's without the values of its environment."""
    return scrub(_ENVIRONMENT.sub(rf"\1{HIDDEN}", text))
