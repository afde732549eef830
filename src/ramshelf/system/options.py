"""The options that ramshelf reads, and their values, converted and checked by oslo.config.

The environment (oslo.config's ``OS_GROUP__OPTION``) is not read: what counts for nova-compute is
its service's environment, not that of the shell that ramshelf is called from, and libvirt's hook
has yet another.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from oslo_config import cfg

from ramshelf.core.errors import ConfigError
from ramshelf.core.setting import Setting

OPTIONS: Mapping[str, tuple[cfg.Opt, ...]] = {
    "libvirt": (
        cfg.IntOpt(
            "file_backed_memory",
            min=0,
            help=(
                "Guest memory that the store provides, in MiB. 0 is off: guests are not backed by "
                "files; so is a nova.conf that does not set it. Where no file of Nova's is read "
                "and ramshelf's own does not set it, the store decides. More than the store can "
                "hold is a failure."
            ),
        ),
        cfg.StrOpt(
            "virt_type",
            default="kvm",
            choices=("kvm", "qemu", "lxc", "parallels", "uml", "xen"),
            help="How guests are run. Only kvm and qemu can have file-backed memory.",
        ),
        cfg.StrOpt(
            "connection_uri",
            default="",
            help="The libvirt connection URI; empty means qemu:///system. --connect overrides it.",
        ),
    ),
    "DEFAULT": (
        cfg.FloatOpt(
            "ram_allocation_ratio",
            min=0.0,
            help=(
                "Nova's overcommit of memory. Must be 1.0 for file-backed memory; unset (or 0.0) "
                "does not count as 1.0."
            ),
        ),
        cfg.IntOpt(
            "reserved_host_memory_mb",
            default=512,
            min=0,
            help=(
                "MiB that Nova keeps for the host out of its inventory. Should be 0 for file-backed"
                " memory: the inventory is the store, not the host's RAM."
            ),
        ),
    ),
    "ramshelf": (
        cfg.BoolOpt(
            "strict",
            default=False,
            help=(
                "Has no effect any more, and may be removed: a hook that is broken refuses guests "
                "whose memory is in files or pinned, and lets all others pass."
            ),
        ),
        cfg.IntOpt(
            "host_reserved_memory_mb",
            default=1024,
            min=0,
            help=(
                "RAM in MiB that the host itself needs. What guests need of RAM that cannot go to "
                "the store has to fit into the rest, or those with memory in files or pinned "
                "memory are refused."
            ),
        ),
        cfg.StrOpt(
            "placement",
            choices=("none", "remote", "embedded"),
            help=(
                "Which Placement hears of this host. none; remote: the one that [placement] "
                "describes as in nova.conf; embedded: the real one inside ramshelf's own "
                "processes, for trying out, for this host only. Where not set: remote if a file "
                "sets auth_type in [placement], else none."
            ),
        ),
        cfg.StrOpt(
            "placement_database",
            default="/var/lib/ramshelf/placement.sqlite",
            help="The file that an embedded Placement keeps its SQLite database in.",
        ),
        cfg.BoolOpt(
            "placement_owner",
            default=False,
            help=(
                "Whether ramshelf makes this host's resource provider and writes its inventory, "
                "traits and allocations. Where nova-compute does, or is to, leave it false: "
                "ramshelf then only compares. Even when true it never touches a provider that is "
                "not its own."
            ),
        ),
        cfg.BoolOpt(
            "placement_required",
            default=False,
            help=(
                "Whether a guest that 'ramshelf guest start' starts must have its allocation first."
                " Where false and Placement does not answer, it starts if the store can hold it, "
                "and the agent claims later."
            ),
        ),
        cfg.StrOpt(
            "metrics_address",
            default="127.0.0.1",
            help=(
                "Where the agent serves its metrics. They tell guests' names and need no password: "
                "change it only for a network that may know."
            ),
        ),
        cfg.IntOpt(
            "metrics_port",
            default=10177,
            min=0,
            max=65535,
            help="The TCP port of the agent's metrics; 0 serves none.",
        ),
        cfg.IntOpt(
            "look_interval",
            default=10,
            min=1,
            help=(
                "Seconds between two looks of the agent's at guests and store; what libvirt tells "
                "by itself is acted upon at once."
            ),
        ),
        cfg.IntOpt(
            "check_interval",
            default=300,
            min=10,
            help="Seconds after which the agent does all of the doctor's checks again.",
        ),
        cfg.IntOpt(
            "report_interval",
            default=60,
            min=1,
            help=(
                "Seconds between two passes of the agent's over Placement; after a guest's start or"
                " end there is one at once."
            ),
        ),
    ),
}
"""What ramshelf reads, under nova.conf's own groups and names.

``[placement]`` is kept as it stands.
"""


def option_names() -> tuple[str, ...]:
    """Return all options as ``section.key``."""
    return tuple(
        f"{group}.{option.name}" for group, options in OPTIONS.items() for option in options
    )


def checked_values(paths: Sequence[str], winners: Mapping[str, Setting]) -> dict[str, Any]:
    """Return each option's value by ``section.key``.

    ``winners`` are the settings of ``paths`` that count. Raises ConfigError, which names all of
    several wrong values.
    """
    conf = opened(paths, winners)
    errors = list(_unknown_keys(winners))
    values: dict[str, Any] = {}
    for group, options in OPTIONS.items():
        for option in options:
            name = f"{group}.{option.name}"
            try:
                value = conf[option.name] if group == "DEFAULT" else conf[group][option.name]
            except (cfg.Error, ValueError) as error:
                errors.append(_bad_value(winners[name], error))
            else:
                values[name] = option.default if value is None else value
    if errors:
        raise _joined(errors)
    return values


def opened(
    paths: Sequence[str], winners: Mapping[str, Setting], *, but_for: AbstractSet[str] = frozenset()
) -> cfg.ConfigOpts:
    """Return these files as oslo.config has them.

    In the sections ``but_for`` none of the other options that the files set is known yet. Raises
    ConfigError ``config.unreadable``.
    """
    conf = cfg.ConfigOpts()
    for group, options in OPTIONS.items():
        conf.register_opts(options, group=_group(group))
    _register_others(
        conf, [setting for setting in winners.values() if setting.section not in but_for]
    )
    try:
        conf(
            [],
            project="ramshelf",
            default_config_files=list(paths),
            default_config_dirs=[],
            use_env=False,
        )
    except (cfg.Error, OSError, ValueError) as error:  # they were readable a moment ago
        raise ConfigError(
            "config.unreadable", f"The configuration cannot be read: {error}."
        ) from error
    return conf


def _group(section: str) -> str | None:
    """Return oslo.config's group of a section.

    $NAME is looked up in the same group, and then outside of all groups.
    """
    return None if section == "DEFAULT" else section


def _register_others(conf: cfg.ConfigOpts, settings: Iterable[Setting]) -> None:
    """Make what else the files set known to oslo.config.

    So $my_ip means what it means to Nova.
    """
    known = set(option_names())
    for setting in settings:
        if setting.name not in known and setting.key.isidentifier() and setting.key[0] != "_":
            conf.register_opt(cfg.StrOpt(setting.key), group=_group(setting.section))


def _unknown_keys(winners: Mapping[str, Setting]) -> Iterator[ConfigError]:
    known = [option.name for option in OPTIONS["ramshelf"]]
    for setting in winners.values():
        if setting.section == "ramshelf" and setting.key not in known:
            close = difflib.get_close_matches(setting.key, known, n=1)
            yield _error(
                "config.unknown-key",
                setting,
                "is not an option of ramshelf",
                f"Did you mean {close[0]}?" if close else f"[ramshelf] has: {', '.join(known)}.",
            )


def _bad_value(setting: Setting, error: Exception) -> ConfigError:
    if isinstance(error, cfg.ConfigFileValueError | ValueError):
        reason = str(error).rpartition("is not valid: ")[2]
        if reason.startswith("invalid literal for int()"):
            reason = "a whole number without a unit is expected"
        elif reason.startswith("could not convert string to float"):
            reason = "a number is expected"
        return _error("config.value", setting, f"is not valid: {reason[:1].lower()}{reason[1:]}")
    return _error(
        "config.reference",
        setting,
        "refers to an option that these files do not set",
        "Nova's own defaults are not known here: set that option, or this one without $.",
    )


def _error(code: str, setting: Setting, what: str, hint: str = "") -> ConfigError:
    return ConfigError(
        code,
        f"{setting} {what}.",
        hint=hint,
        facts={
            "path": setting.path,
            "section": setting.section,
            "key": setting.key,
            "line": setting.line,
        },
    )


def _joined(errors: Sequence[ConfigError]) -> ConfigError:
    """Return one error that says all: the code of the first, and each place among the facts."""
    first = errors[0]
    return ConfigError(
        first.code,
        " ".join(error.sentence for error in errors),
        hint=" ".join(error.hint for error in errors if error.hint),
        facts={**first.facts, "errors": [{"code": error.code, **error.facts} for error in errors]},
    )
