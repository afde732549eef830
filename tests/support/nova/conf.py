"""nova.conf and api-paste.ini of the Nova under test."""

from collections.abc import Mapping
from pathlib import Path

from support.accelerator import accelerator

NOVA_CONF = Path("/etc/nova/nova.conf")
API_PASTE = NOVA_CONF.with_name("api-paste.ini")

Settings = Mapping[str, Mapping[str, object]]
"""Options by section; an option that is None is not set."""


def settings(url: str, state: Path, more: Settings) -> Settings:
    """Return what Nova needs to run here; options in ``more`` take precedence.

    Memory is not overcommitted and none is reserved, as Nova's own guide wants it for file-backed
    memory. ``url`` is where all services are, ``state`` is Nova's state_path.
    """
    service = {"auth_type": "admin_token", "token": "admin"}
    here: dict[str, dict[str, object]] = {
        "DEFAULT": {
            "debug": True,
            "log_file": state / "nova.log",
            "state_path": state,
            "transport_url": "fake:///",
            "ram_allocation_ratio": 1.0,
            "cpu_allocation_ratio": 16.0,
            "disk_allocation_ratio": 16.0,
            "reserved_host_memory_mb": 0,
            "compute_driver": "libvirt.LibvirtDriver",
            "allow_resize_to_same_host": True,
        },
        "api_database": {"connection": f"sqlite:///{state}/api.sqlite"},
        "database": {"connection": f"sqlite:///{state}/cell1.sqlite"},
        "oslo_concurrency": {"lock_path": state / "locks"},
        "placement": {
            **service,
            "endpoint": f"{url}/placement",
            "endpoint_override": f"{url}/placement",
        },
        "neutron": {**service, "endpoint": f"{url}/network", "endpoint_override": f"{url}/network"},
        "glance": {"api_servers": f"{url}/image"},
        "quota": {"instances": -1, "cores": -1, "ram": -1},
        "vnc": {"enabled": False},
        "libvirt": {
            "virt_type": accelerator(),
            "cpu_mode": "none",
            "images_type": "raw",
        },
        # The inspection would take a kernel's image for a disk with partitions.
        "workarounds": {"disable_deep_image_inspection": True},
    }
    for section, options in more.items():
        here.setdefault(section, {}).update(options)
    return here


def write(settings: Settings, virtual_environment: Path) -> None:
    """Write /etc/nova as an operator has it, except for Keystone (``stubs.operator``)."""
    NOVA_CONF.parent.mkdir(exist_ok=True)
    NOVA_CONF.write_text(text(settings))
    shipped = (virtual_environment / "etc/nova/api-paste.ini").read_text()
    assert " authtoken keystonecontext " in shipped
    API_PASTE.write_text(shipped.replace(" authtoken keystonecontext ", " keystonecontext "))


def text(settings: Settings) -> str:
    """Return the text of a configuration file."""
    lines: list[str] = []
    for section, options in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {value}" for key, value in options.items() if value is not None]
    return "\n".join(lines) + "\n"
