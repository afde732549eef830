"""ramshelf-nova as it is installed: Nova finds it in its own ways, and it goes without a trace."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import nova
import pytest
from nova import exception
from nova.api.validation.extra_specs import validators
from nova.conf import scheduler
from nova.db.api import api, models
from nova.scheduler.client import report
from nova.scheduler.filters import HostFilterHandler
from nova.scheduler.host_manager import HostManager
from nova.scheduler.weights import HostWeightHandler
from os_traits import COMPUTE_MEM_BACKING_FILE
from oslo_config import cfg

from ramshelf_nova import conf
from ramshelf_nova import filter as ramshelf_filter
from ramshelf_nova.extraspec import NAME
from ramshelf_nova.figures import RAM_MIB, RESIDENT_MIB
from ramshelf_nova.weigher import StoreHeadroomWeigher
from support.nova_objects import host, request
from support.placement_answers import Placement

CHECKOUT = Path(__file__).parents[3]
PAGE = (CHECKOUT / "docs/reference/nova-filter.md").read_text()


@pytest.fixture
def configured(tmp_path: Path) -> cfg.ConfigOpts:
    """Nova's options as nova-scheduler reads them from the nova.conf that the reference shows."""
    (example,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "nova.conf").write_text(example)
    read = cfg.ConfigOpts()
    scheduler.register_opts(read)
    read.register_opts(conf.SCHEDULER_OPTIONS, group=conf.GROUP)
    read(
        [],
        project="nova",
        default_config_files=[str(tmp_path / "nova.conf")],
        default_config_dirs=[],
    )
    return read


def test_nova_loads_the_filter_by_the_configuration_shown(configured: cfg.ConfigOpts) -> None:
    classes = HostFilterHandler().get_matching_classes(
        configured.filter_scheduler.available_filters
    )
    by_name = {each.__name__: each for each in classes}
    assert by_name["FileBackedMemoryFilter"] is ramshelf_filter.FileBackedMemoryFilter
    assert set(configured.filter_scheduler.enabled_filters) <= set(by_name)
    assert "FileBackedMemoryFilter" in configured.filter_scheduler.enabled_filters


def test_the_example_keeps_novas_own_filters_and_weighers(configured: cfg.ConfigOpts) -> None:
    shown = configured.filter_scheduler
    default = cfg.ConfigOpts()
    scheduler.register_opts(default)
    default([], project="nova", default_config_files=[], default_config_dirs=[])
    assert shown.enabled_filters == [
        *default.filter_scheduler.enabled_filters,
        "FileBackedMemoryFilter",
    ]
    weighers = HostWeightHandler().get_matching_classes(shown.weight_classes)
    novas = HostWeightHandler().get_matching_classes(default.filter_scheduler.weight_classes)
    assert weighers == [*novas, StoreHeadroomWeigher]


def test_nova_schedules_with_both(
    configured: cfg.ConfigOpts,
    option: Callable[[str, Any], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The host manager is made as in nova-scheduler, over an API database that has no cell yet."""
    conf.CONF.set_override("connection", f"sqlite:///{tmp_path}/api.sqlite", group="api_database")
    api.configure(conf.CONF)
    models.BASE.metadata.create_all(api.get_engine())
    for name in ("available_filters", "enabled_filters", "weight_classes"):
        option(name, getattr(configured.filter_scheduler, name))
    option("track_instance_changes", False)
    monkeypatch.setattr(report, "PLACEMENTCLIENT", Placement({"file": [COMPUTE_MEM_BACKING_FILE]}))

    manager = HostManager()
    *_, ours = manager.enabled_filters
    assert isinstance(ours, ramshelf_filter.FileBackedMemoryFilter)
    assert any(isinstance(weigher, StoreHeadroomWeigher) for weigher in manager.weighers)
    manager.enabled_filters = [ours]  # Nova's own ask for services that are up
    passing = manager.get_filtered_hosts(
        [host("anonymous"), host("file")], request({NAME: "required"})
    )
    assert [each.host for each in passing] == ["file"]
    full, empty = ({RAM_MIB: 100, RESIDENT_MIB: resident} for resident in (90, 0))
    weighed = manager.get_weighed_hosts(
        [host("full", stats=full), host("empty", stats=empty)], request()
    )
    assert [each.obj.host for each in weighed] == ["empty", "full"]


def test_the_filter_by_its_own_name() -> None:
    names = ["nova.scheduler.filters.all_filters", "ramshelf_nova.filter.FileBackedMemoryFilter"]
    assert ramshelf_filter.FileBackedMemoryFilter in HostFilterHandler().get_matching_classes(names)


@pytest.mark.parametrize("module", ["driver", "filter", "weigher"])
def test_each_module_is_imported_first(module: str) -> None:
    """nova-scheduler registers objects before it loads filters; nova-manage and others need not."""
    program = f"import ramshelf_nova.{module}"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60, cwd="/")


@pytest.mark.parametrize("value", ["required", "forbidden"])
def test_nova_validates_the_extra_spec(value: str) -> None:
    validators.validate(NAME, value)


@pytest.mark.parametrize(("name", "value"), [(NAME, "yes"), ("ramshelf:file_backed", "required")])
def test_nova_refuses_what_is_not_one(name: str, value: str) -> None:
    with pytest.raises(exception.ValidationError):
        validators.validate(name, value)


def test_the_options_are_in_novas_sample_and_in_the_reference() -> None:
    generator = Path(sys.executable).with_name("oslo-config-generator")
    argv = [str(generator), "--namespace", "ramshelf-nova"]
    sample = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    assert "[filter_scheduler]" in sample
    documented = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", PAGE, re.MULTILINE))
    expected = {}
    for option in conf.SCHEDULER_OPTIONS:
        default = (
            ",".join(option.default) if isinstance(option.default, list) else str(option.default)
        )
        assert re.search(rf"(?im)^#{option.name} = {re.escape(default)}$", sample), option.name
        expected[option.name] = default
    assert documented == expected


def test_it_needs_no_package() -> None:
    assert distribution("ramshelf-nova").requires is None


def test_installed_beside_nova_and_removed_without_a_trace(tmp_path: Path) -> None:
    environment, others = tmp_path / "venv", tmp_path / "others"
    _run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    python = str(environment / "bin/python")
    site = next(environment.glob("lib/python3*/site-packages"))
    (site / "others.pth").write_text(f"{others}\n")
    others.mkdir()
    for path in Path(nova.__file__).parents[1].iterdir():
        if path.name == "nova":
            unneeded = shutil.ignore_patterns("tests", "ramshelf")  # as it was before
            shutil.copytree(path, site / "nova", ignore=unneeded)
        elif not path.name.startswith("ramshelf"):
            (others / path.name).symlink_to(path)
    pip = (sys.executable, "-m", "pip", "--python", python)
    (wheel,) = (CHECKOUT / ".cache/nova-wheel").glob("*.whl")

    before = _listing(environment)
    _run(*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    program = "import nova, nova.virt.ramshelf as d; print(nova.__file__, d.__file__)"
    where = _run(python, "-B", "-W", "ignore", "-c", program).split()
    assert all(path.startswith(str(site)) for path in where), where
    assert _listing(environment) != before
    _run(*pip, "uninstall", "--quiet", "--yes", "ramshelf-nova")
    assert _listing(environment) == before


def _run(*argv: str) -> str:
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _listing(directory: Path) -> dict[str, tuple[int, int]]:
    """All that is below it, with size and time of change."""
    return {
        str(path.relative_to(directory)): (
            (path.lstat().st_size, path.lstat().st_mtime_ns) if path.is_file() else (0, 0)
        )
        for path in directory.rglob("*")
    }
