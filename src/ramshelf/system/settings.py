"""The configuration of this host."""

from collections.abc import Sequence

from ramshelf.core.config import Config, contradictions
from ramshelf.core.setting import (
    DEFAULT_FILES,
    nova_files,
    unset_file_backed_memory,
    unset_placement_mode,
    winning,
)
from ramshelf.system.configfiles import directory_files, existing_files, read_settings


def load_config(files: Sequence[str] = (), directories: Sequence[str] = ()) -> Config:
    """Return the configuration of these files, then these directories' ``*.conf``.

    Without either it is that of DEFAULT_FILES. Raises ConfigError with a code ``config.*``, which
    names file, section and key, and all of several wrong values.
    """
    named = bool(files or directories)
    paths = (
        (*files, *(path for directory in directories for path in directory_files(directory)))
        if named
        else existing_files(DEFAULT_FILES)
    )
    if not paths:
        return Config()
    from ramshelf.system.options import (  # noqa: PLC0415 - oslo.config is slow
        checked_values,
        option_names,
    )

    settings = read_settings(paths)
    winners = winning(settings)
    values = checked_values(paths, winners)
    nova = nova_files(paths, settings)
    placement = {
        setting.key: setting.value for setting in winners.values() if setting.section == "placement"
    }
    file_backed_memory = values["libvirt.file_backed_memory"]
    return Config(
        file_backed_memory_mib=(
            unset_file_backed_memory(nova) if file_backed_memory is None else file_backed_memory
        ),
        virt_type=values["libvirt.virt_type"],
        connection_uri=values["libvirt.connection_uri"] or Config.connection_uri,
        ram_allocation_ratio=values["DEFAULT.ram_allocation_ratio"] or None,
        reserved_host_memory_mib=values["DEFAULT.reserved_host_memory_mb"],
        placement=placement,
        placement_mode=values["ramshelf.placement"] or unset_placement_mode(placement),
        placement_database=values["ramshelf.placement_database"],
        placement_owner=values["ramshelf.placement_owner"],
        placement_required=values["ramshelf.placement_required"],
        host_reserved_mib=values["ramshelf.host_reserved_memory_mb"],
        metrics_address=values["ramshelf.metrics_address"],
        metrics_port=values["ramshelf.metrics_port"],
        look_interval=values["ramshelf.look_interval"],
        check_interval=values["ramshelf.check_interval"],
        report_interval=values["ramshelf.report_interval"],
        files=paths,
        nova_files=nova,
        settings=winners,
        contradictions=contradictions(settings, option_names()),
    )
