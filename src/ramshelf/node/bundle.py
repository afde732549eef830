"""Gathering what a support bundle holds; each piece by itself, and none is waited for for long."""

import json
import logging
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from glob import glob
from importlib import metadata

from ramshelf import __version__
from ramshelf.core.agent.unit import AGENT, DIRECTORY, SHIPPED
from ramshelf.core.doctor import masking
from ramshelf.core.errors import RamshelfError
from ramshelf.core.secrets import scrub
from ramshelf.core.setting import DEFAULT_FILES
from ramshelf.core.text import printable
from ramshelf.system.archive import write_archive
from ramshelf.system.backingstore import FSTAB, QEMU_CONF
from ramshelf.system.configfiles import existing_files
from ramshelf.system.earlier import PATH as PROMISED_BEFORE
from ramshelf.system.filesystem import last_bytes, read_text
from ramshelf.system.hooklog import LOG
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.options import option_names
from ramshelf.system.run import run
from ramshelf.system.steps import LOGGER, log_step
from ramshelf.system.worker import Patience, answer_of

_LOG_BYTES = 256 << 10
"""The most bytes of a log, from its end."""

_MOST_LOGS = 30
"""The most logs of guests, the latest first."""

_DOMAINS = ("/etc/libvirt/qemu/*.xml", "/run/libvirt/qemu/*.xml")
_UNITS = (
    f"{SHIPPED}/ramshelf*",
    f"{DIRECTORY}/ramshelf*",
    f"{DIRECTORY}/*.d/ramshelf.conf",
    f"{DIRECTORY}/ramshelf*.d/*.conf",
    "/etc/sysctl.d/90-ramshelf.conf",
)
_DAEMON_LOGS = ("/var/log/libvirt/libvirtd.log", "/var/log/libvirt/virtqemud.log")
_GUEST_LOGS = "/var/log/libvirt/qemu/*.log"
_PACKAGES = ("click", "libvirt-python", "lxml", "oslo.config", "prometheus-client")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One or more files of a bundle; ``read`` gives their texts by their paths in it."""

    name: str
    what: str
    read: Callable[[], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What was gathered: texts by their paths, and why other parts are missing, by their names."""

    texts: Mapping[str, str]
    missing: Mapping[str, str]


def default_name() -> str:
    """Return the bundle's file name, by host and time."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", os.uname().nodename)
    return f"ramshelf-{host}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"


def write(path: str, bundle: Bundle) -> None:
    """Write the bundle as a tar.gz that its owner alone can read. Raises OSError."""
    directory = os.path.basename(path).removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    write_archive(path, directory or "ramshelf", bundle.texts)


def collect(
    reports: tuple[Part, ...],
    uri: Callable[[], str],
    files: tuple[str, ...],
    directories: tuple[str, ...],
    *,
    patience: Patience,
) -> Bundle:
    """Gather the reports and what else tells of this host, without its secrets.

    ``files`` and ``directories`` are the configuration's, where any were named. Each part is read
    in a process of its own, so that one that hangs (libvirt, a dead mount) is named as missing;
    there ``uri`` is called, which returns libvirt's. This process must have no other threads.
    """
    sources = (*files, *directories) or DEFAULT_FILES
    known_secrets = Part(
        name="secrets", what="", read=lambda: {"": json.dumps(sorted(_secrets(sources)))}
    )
    texts: dict[str, str] = {}
    missing: dict[str, str] = {}
    found, problem = _answer(known_secrets, patience)
    secrets = json.loads(found[""]) if found else []
    if not found:
        missing["(secrets)"] = f"they are masked by rules alone: {problem}"
    parts = (*reports, *_parts(uri, sources))
    for part in parts:
        found, problem = _answer(part, patience)
        texts |= {name: masking.without(text, secrets) for name, text in found.items()}
        if not found:
            missing[part.name] = printable(masking.without(problem, secrets))
    texts["INDEX"] = _index(parts, texts, missing)
    return Bundle(texts=texts, missing=missing)


def _answer(part: Part, patience: Patience) -> tuple[dict[str, str], str]:
    """Return a part's texts, or no text and why there is none."""
    with patience.waiting() as seconds:
        answer = answer_of(lambda: _told(part), seconds)
    if answer is None:
        return {}, f"there was no answer within {seconds:.0f} s"
    if not answer:
        return {}, "it could not be read"
    texts, problem, steps = json.loads(answer)
    for step in steps:
        log_step(step)
    return texts, problem


def _told(part: Part) -> bytes:
    steps: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        steps.append(record.getMessage())
        return False

    logging.getLogger(LOGGER).addFilter(keep)  # this process has no standard error
    try:
        texts, problem = part.read(), "there is nothing of it"
    except RamshelfError as error:
        texts, problem = {}, error.sentence.rstrip(".")
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        texts, problem = {}, f"{error.filename}: {reason}" if error.filename else reason
    except Exception as error:  # noqa: BLE001 - what it says may quote what was to be masked
        texts, problem = {}, f"{type(error).__name__} while it was read"
    return json.dumps([dict(texts), problem, steps]).encode()


def _index(parts: tuple[Part, ...], texts: Mapping[str, str], missing: Mapping[str, str]) -> str:
    there = [part for part in parts if part.name not in missing]
    width = max(len(part.name) for part in parts)
    lines = [f"{part.name:{width}}  {part.what}" for part in there]
    lines += ["", f"Files: {len(texts)}. Secrets are masked as ***; look through it all the same."]
    if missing:
        lines += ["", "Not here:", *(f"{name:{width}}  {why}" for name, why in missing.items())]
    return "\n".join(lines) + "\n"


def _secrets(sources: tuple[str, ...]) -> set[str]:
    """Return the secrets of this host that are known, to be masked wherever they stand."""
    found: set[str] = set()
    for path in (*existing_files(sources), QEMU_CONF):
        with suppress(OSError):
            found |= masking.secrets_of_settings(read_text(path))
    for path in _files(*_DOMAINS):
        with suppress(OSError):
            found |= masking.secrets_of_domain(read_text(path))
    return found


def _each(paths: Mapping[str, str], read: Callable[[str], str]) -> Mapping[str, str]:
    """Return the texts of these files, which are given by their paths in the bundle.

    Where one cannot be read, it says why.
    """
    texts = {}
    for member, path in paths.items():
        try:
            texts[member] = read(path)
        except OSError as error:
            texts[member] = f"(not read: {os.strerror(error.errno or 0).lower()})\n"
    return texts


def _below(directory: str, paths: Iterable[str]) -> dict[str, str]:
    """Return files by their paths in the bundle, where they have a directory for their names."""
    return {f"{directory}{os.path.basename(path)}": path for path in paths}


def _latest(paths: Iterable[str]) -> list[str]:
    """Return the logs that were written to last."""
    times = {}
    for path in paths:
        with suppress(FileNotFoundError):  # it was rotated away
            times[path] = os.path.getmtime(path)
    return sorted(times, key=lambda path: times[path])[-_MOST_LOGS:]


def _parts(uri: Callable[[], str], sources: tuple[str, ...]) -> tuple[Part, ...]:
    own = frozenset(option_names())
    return (
        Part(name="versions.json", what="versions of all that takes part", read=_versions),
        Part(
            name="config/",
            what="the configuration files that ramshelf reads, by their paths",
            read=lambda: _each(
                {f"config{os.path.abspath(path)}": path for path in existing_files(sources)},
                lambda path: masking.mask_settings(read_text(path), own),
            ),
        ),
        Part(
            name="qemu.conf",
            what="the settings of libvirt's qemu.conf",
            read=lambda: {"qemu.conf": masking.mask_qemu_conf(read_text(QEMU_CONF))},
        ),
        Part(
            name="fstab",
            what="/etc/fstab",
            read=lambda: {"fstab": masking.mask_fstab(read_text(FSTAB))},
        ),
        Part(
            name="mounts",
            what="/proc/self/mountinfo",
            read=lambda: {"mounts": masking.mask_mounts(read_text("/proc/self/mountinfo"))},
        ),
        *(_plain(path) for path in ("/proc/swaps", "/proc/meminfo", PROMISED_BEFORE)),
        Part(
            name="units/",
            what="ramshelf's units, drop-ins and sysctls, by their paths",
            read=lambda: _each(
                {f"units{path}": path for path in _files(*_UNITS)},
                lambda path: masking.mask_unit(read_text(path)),
            ),
        ),
        Part(
            name="capabilities.xml",
            what="what 'virsh capabilities' says",
            read=lambda: _of_libvirt(uri, _capabilities),
        ),
        Part(
            name="guests/",
            what="the XML of the guests that run, as far as it bears on their memory",
            read=lambda: _of_libvirt(uri, _guests),
        ),
        Part(
            name="logs/hook.log",
            what="the decisions of libvirt's hook (and logs/hook.log.1, the older ones)",
            read=lambda: {
                f"logs/{os.path.basename(path)}": scrub(last_bytes(path, _LOG_BYTES))
                for path in (LOG, f"{LOG}.1")
                if os.path.exists(path)
            },
        ),
        Part(name="logs/agent.log", what="the agent's journal", read=_journal),
        Part(
            name="logs/libvirt/",
            what="what libvirt's daemons have logged",
            read=lambda: _each(
                _below("logs/libvirt/", _files(*_DAEMON_LOGS)),
                lambda path: masking.mask_daemon_log(last_bytes(path, _LOG_BYTES)),
            ),
        ),
        Part(
            name="logs/qemu/",
            what="what libvirt and QEMU have logged of guests, the latest",
            read=lambda: _each(
                _below("logs/qemu/", _latest(_files(_GUEST_LOGS))),
                lambda path: masking.mask_qemu_log(last_bytes(path, _LOG_BYTES)),
            ),
        ),
    )


def _plain(path: str) -> Part:
    name = os.path.basename(path)
    return Part(name=name, what=path, read=lambda: {name: scrub(read_text(path))})


def _files(*patterns: str) -> Iterator[str]:
    return (path for each in patterns for path in sorted(glob(each)) if os.path.isfile(path))


def _versions() -> dict[str, str]:
    uname = os.uname()
    document = {
        "ramshelf": __version__,
        "python": platform.python_version(),
        "kernel": f"{uname.release} {uname.version} {uname.machine}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME"),
        **{name: _installed(name) for name in _PACKAGES},
    }
    return {"versions.json": json.dumps(document, indent=2) + "\n"}


def _installed(name: str) -> str | None:
    """Return a distribution's version, None where it has not said that it is there."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _of_libvirt(
    uri: Callable[[], str], ask: Callable[[Hypervisor], Mapping[str, str]]
) -> Mapping[str, str]:
    with Hypervisor(uri(), read_only=True) as hypervisor:
        return ask(hypervisor)


def _capabilities(hypervisor: Hypervisor) -> dict[str, str]:
    return {"capabilities.xml": scrub(hypervisor.capabilities())}


def _guests(hypervisor: Hypervisor) -> dict[str, str]:
    texts = {}
    for domain in hypervisor.active():
        name = re.sub(r"[^\w.-]", "_", domain.name)
        path = f"guests/{domain.domain_id}-{name}.xml"
        try:
            texts[path] = masking.mask_domain(hypervisor.live_xml(domain.name))
        except RamshelfError as error:  # such as one that has ended meanwhile
            texts[path] = f"(not read: {error.sentence})\n"
        except SyntaxError:  # lxml's is one
            texts[path] = "(not read: it is no XML)\n"
    return texts


def _journal() -> dict[str, str]:
    if not os.path.isdir("/run/systemd/system"):
        return {}
    options = ("--lines=2000", "--no-pager", "--output=short-iso")
    told = run(("journalctl", f"--unit={AGENT}", *options), timeout=15).stdout
    return {"logs/agent.log": scrub(told)}
