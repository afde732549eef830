"""Checks of nova.conf and ramshelf.conf, against the store and against who has read them."""

from collections.abc import Iterator

from ramshelf.core.catalog import finding, unknown
from ramshelf.core.config import Config
from ramshelf.core.doctor.facts import BadConfig, Facts, StoreFacts
from ramshelf.core.findings import Finding, Severity
from ramshelf.core.host import Unknown
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import capacity
from ramshelf.core.units import MIB, to_mib


def check_config(facts: Facts) -> Iterator[Finding]:
    """Check the configuration by Nova's rules for file_backed_memory (admin guide).

    These matter only where a Nova file is read.
    """
    config = facts.config
    if isinstance(config, BadConfig):
        refusal = finding(config.code, f"{config.reason}.", hint=config.hint)
        yield replace(refusal, facts=config.facts)
        return
    found = [
        *_values(config),
        *_against_store(config, facts),
        *_contradictions(config),
        *_nova(facts),
    ]
    yield from found
    if all(each.severity in {Severity.OK, Severity.INFO} for each in found):
        sentence = (
            f"The configuration is that of {', '.join(config.files)}."
            if config.files
            else "There is no configuration file: ramshelf uses its defaults."
        )
        yield finding("config.ok", sentence, files=list(config.files))


def _values(config: Config) -> Iterator[Finding]:
    if config.off:
        setting = config.settings.get("libvirt.file_backed_memory")
        where = str(setting or f"{config.nova_files[-1]} does not set it")
        yield finding(
            "config.off", f"file_backed_memory is off ({where}): no guest is backed by files."
        )
        return
    if not config.nova_files:
        return
    ratio = config.ram_allocation_ratio
    if ratio != 1.0:
        yield finding(
            "config.allocation-ratio",
            f"ram_allocation_ratio is {'unset' if ratio is None else ratio}, not 1.0: nova-compute "
            "refuses to start with file-backed memory.",
            ram_allocation_ratio=ratio,
        )
    reserved, memory = config.reserved_host_memory_mib, config.file_backed_memory_mib
    is_set = "DEFAULT.reserved_host_memory_mb" in config.settings
    how = "" if is_set else " (Nova's default)"
    if memory is not None and reserved >= memory:
        yield finding(
            "config.reserved-exceeds",
            f"reserved_host_memory_mb is {reserved}{how}, not less than file_backed_memory, "
            f"{memory}.",
            reserved_mib=reserved,
            file_backed_memory_mib=memory,
        )
    elif reserved:
        yield finding(
            "config.reserved",
            f"reserved_host_memory_mb is {reserved}{how}: so much of the store stays unused.",
            reserved_mib=reserved,
        )


def _against_store(config: Config, facts: Facts) -> Iterator[Finding]:
    configured = config.file_backed_memory_mib
    if (
        not configured
        or not isinstance(facts.store, StoreFacts)
        or isinstance(facts.store.usage, Unknown)
    ):
        return
    holds = to_mib(capacity(facts.store.usage, configured_mib=None).total)
    if configured > holds:
        yield finding(
            "config.exceeds-store",
            f"file_backed_memory is {configured} MiB, and the store can hold {holds} MiB.",
            file_backed_memory_mib=configured,
            store_mib=holds,
        )
    elif configured < (
        promised := to_mib(capacity(facts.store.usage, configured_mib=None).promised)
    ):
        yield finding(
            "config.below-promised",
            f"file_backed_memory is {configured} MiB, and {promised} MiB are promised to guests.",
            file_backed_memory_mib=configured,
            promised_mib=promised,
        )
    elif configured < 0.9 * holds:
        yield finding(
            "config.below-store",
            f"file_backed_memory is {configured} MiB of the {holds} MiB that the store can hold.",
            file_backed_memory_mib=configured,
            store_mib=holds,
        )


def _contradictions(config: Config) -> Iterator[Finding]:
    for places in config.contradictions:
        yield finding(
            "config.contradiction",
            f"{places[-1]} wins over " + "; ".join(str(place) for place in places[:-1]) + ".",
            places=[str(place) for place in places],
        )


def _nova(facts: Facts) -> Iterator[Finding]:
    process = facts.nova_compute
    if isinstance(process, Unknown):
        if facts.nova_changed:
            yield unknown(
                "config.nova-unknown", "Whether nova-compute runs could not be found out", process
            )
    elif process is not None:
        for path, changed in facts.nova_changed.items():
            if changed > process.started:
                yield finding(
                    "config.nova-changed",
                    f"{path} was changed after nova-compute (process {process.pid}) had started.",
                    path=path,
                    pid=process.pid,
                )


def configured_bytes(facts: Facts) -> int | None:
    """Return file_backed_memory in bytes.

    The result is None where the store decides or the configuration is not known.
    """
    most = None if isinstance(facts.config, Unknown) else facts.config.limit.mib
    return None if most is None else most * MIB
