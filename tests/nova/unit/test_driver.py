"""The driver where no libvirt is needed: a real LibvirtDriver, told what the hook says."""

import inspect
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nova import exception, objects, version
from nova.compute.provider_tree import ProviderTree
from nova.virt.driver import load_compute_driver
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt.driver import LibvirtDriver
from nova.virt.libvirt.host import Host

from ramshelf_nova import provider, service
from ramshelf_nova.compatibility import TESTED, misfits, missing
from ramshelf_nova.conf import CONF
from ramshelf_nova.core.migration.answer import HostAnswer
from ramshelf_nova.core.store.kind import Kind
from ramshelf_nova.driver import FileBackedLibvirtDriver
from ramshelf_nova.hook import trouble

objects.register_all()

SWAP = HostAnswer(
    kernel="6.18.0",
    kind=Kind.SWAP,
    fstype="tmpfs",
    configured=True,
    capacity_mib=4096,
    free_mib=1024,
)
XFS = replace(SWAP, kind=Kind.DISK, fstype="xfs")
EXT4 = replace(SWAP, kind=Kind.DISK, fstype="ext4")
UNMOUNTED = replace(
    SWAP, kind=None, fstype=None, problem="store.not-mounted", capacity_mib=0, free_mib=0
)


class Told:
    """What the driver asks the hook through."""

    def __init__(self, answer: HostAnswer | None) -> None:
        self._answer = answer

    def answer(self, *, fresh: bool = False) -> HostAnswer | None:  # noqa: ARG002
        return self._answer


@pytest.fixture(autouse=True)
def no_memory_encryption(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nova 31 asks libvirt whether it has that, even for a server that does not want it."""
    monkeypatch.setattr(Host, "supports_amd_sev", False)


@pytest.fixture
def file_backed() -> Iterator[Callable[[int], None]]:
    yield lambda mib: CONF.set_override("file_backed_memory", mib, group="libvirt")
    CONF.clear_override("file_backed_memory", group="libvirt")


@pytest.fixture(scope="module")
def driver() -> FileBackedLibvirtDriver:
    CONF.set_override("virt_type", "qemu", group="libvirt")
    loaded = load_compute_driver(None, "ramshelf.FileBackedLibvirtDriver")
    CONF.clear_override("virt_type", group="libvirt")
    assert isinstance(loaded, FileBackedLibvirtDriver)
    return loaded


def told(driver: FileBackedLibvirtDriver, answer: HostAnswer | None) -> FileBackedLibvirtDriver:
    driver._hook = Told(answer)  # type: ignore[assignment]  # noqa: SLF001
    return driver


def memory_backing(driver: LibvirtDriver, topology: Any = None, **extra_specs: str) -> str | None:
    flavor = objects.Flavor(extra_specs=extra_specs, vcpus=2, memory_mb=64)
    image = objects.ImageMeta(properties=objects.ImageMetaProps())
    backing = driver._get_guest_memory_backing_config(topology, None, flavor, image)  # noqa: SLF001
    return None if backing is None else backing.to_xml(pretty_print=False)


@pytest.mark.parametrize(
    ("answer", "rest"),
    [
        (SWAP, "<discard/>"),
        (EXT4, "<discard/>"),
        (replace(EXT4, kernel="6.1.0-56-cloud-amd64"), ""),
        (XFS, ""),
        (None, '<allocation mode="immediate"/>'),
        (UNMOUNTED, '<allocation mode="immediate"/>'),
    ],
)
def test_memory_is_allocated_on_demand_where_it_is_reserved_and_discarded_where_that_is_free(
    driver: FileBackedLibvirtDriver,
    file_backed: Callable[[int], None],
    answer: HostAnswer | None,
    rest: str,
) -> None:
    file_backed(2048)
    assert (
        memory_backing(told(driver, answer))
        == f'<memoryBacking><source type="file"/><access mode="shared"/>{rest}</memoryBacking>'
    )


LOCKED = {"hw:locked_memory": "true", "hw:mem_page_size": "small"}
REALTIME = {"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0", "hw:cpu_policy": "dedicated"}


@pytest.mark.parametrize("extra_specs", [{}, LOCKED, REALTIME])
def test_without_file_backed_memory_it_is_novas(
    driver: FileBackedLibvirtDriver, extra_specs: dict[str, str]
) -> None:
    topology = objects.InstanceNUMATopology(cells=[objects.InstanceNUMACell(id=0, pagesize=None)])
    expected = memory_backing(LibvirtDriver(None), topology, **extra_specs)
    assert memory_backing(told(driver, SWAP), topology, **extra_specs) == expected
    assert "file" not in (expected or "")


def test_pages_of_a_size_are_refused_as_ever(
    driver: FileBackedLibvirtDriver, file_backed: Callable[[int], None]
) -> None:
    file_backed(2048)
    topology = objects.InstanceNUMATopology(cells=[objects.InstanceNUMACell(id=0, pagesize=4)])
    with pytest.raises(exception.MemoryPagesUnsupported):
        memory_backing(told(driver, SWAP), topology)


# Whether this Nova is one that the driver fits


def test_it_overrides_what_this_nova_has() -> None:
    assert list(misfits(FileBackedLibvirtDriver, LibvirtDriver)) == []
    private = [
        name for name in vars(FileBackedLibvirtDriver) if name.startswith("_") and name[1] != "_"
    ]
    assert private == ["_get_guest_memory_backing_config"]


def test_it_names_the_nova_that_it_is_tested_with() -> None:
    assert version.version_string().partition(".")[0] in TESTED


def test_parameters_that_nova_has_changed() -> None:
    class Theirs:
        def same(self, a: int, b: int = 1) -> None: ...
        def more(self, a: int, b: int) -> None: ...
        def renamed(self, c: int) -> None: ...
        def default(self, a: int = 2) -> None: ...
        def keyword(self, *, a: int) -> None: ...

    class Ours(Theirs):
        def same(self, a, b=1): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def more(self, a): ...  # type: ignore[no-untyped-def,override]  # noqa: ANN001, ANN202
        def renamed(self, a): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def default(self, a=1): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def keyword(self, a): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def removed(self) -> None: ...

    assert list(misfits(Ours, Theirs)) == [
        "more is now more(self, a: int, b: int) -> None",
        "renamed is now renamed(self, c: int) -> None",
        "default is now default(self, a: int = 2) -> None",
        "keyword is now keyword(self, *, a: int) -> None",
        "removed is gone",
    ]


def test_attributes_that_are_missing() -> None:
    assert list(missing(SimpleNamespace(filesource=True), "filesource", "discard")) == [
        "SimpleNamespace.discard is gone"
    ]


def test_it_refuses_to_start_on_a_nova_that_it_does_not_fit(
    driver: FileBackedLibvirtDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(self: Any, instance: Any, flavor: Any) -> None: ...

    monkeypatch.setattr(libvirt_driver.LibvirtDriver, "_get_guest_memory_backing_config", changed)
    with pytest.raises(exception.InternalError, match=r"does not fit Nova .* is now .*instance"):
        driver.init_host("host")


def test_no_method_takes_what_it_likes() -> None:
    """Else a change of Nova's would not be noticed."""
    for method in filter(inspect.isfunction, vars(FileBackedLibvirtDriver).values()):
        kinds = {parameter.kind for parameter in inspect.signature(method).parameters.values()}
        assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


# Live migration: what is refused before Nova's own checks


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            replace(SWAP, free_mib=511),
            "it needs 512 MiB of file-backed memory, and 511 MiB are free",
        ),
        (UNMOUNTED, "there is no store (store.not-mounted)"),
        (None, "ramshelf's hook does not answer"),
    ],
)
def test_a_destination_that_cannot_take_the_server(
    driver: FileBackedLibvirtDriver,
    file_backed: Callable[[int], None],
    answer: HostAnswer | None,
    reason: str,
) -> None:
    file_backed(2048)
    server = objects.Instance(flavor=objects.Flavor(memory_mb=512))
    with pytest.raises(exception.MigrationPreCheckError) as refused:
        told(driver, answer).check_can_live_migrate_destination(None, server, {}, {})
    assert reason in str(refused.value)


@pytest.mark.parametrize("here", [True, False])
def test_a_source_whose_guest_is_backed_in_another_way(
    driver: FileBackedLibvirtDriver,
    file_backed: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    here: bool,  # noqa: FBT001
) -> None:
    file_backed(0 if here else 2048)  # what the guest was started with counts
    source = "<source type='file'/>" if here else "<locked/>"
    xml = f"<domain><memoryBacking>{source}</memoryBacking></domain>"
    guest = SimpleNamespace(get_xml_desc=lambda: xml)
    monkeypatch.setattr(driver._host, "get_guest", lambda _: guest)  # noqa: SLF001
    wanted = objects.LibvirtLiveMigrateData(dst_wants_file_backed_memory=not here)
    with pytest.raises(exception.MigrationPreCheckError, match="libvirt cannot change that"):
        driver.check_can_live_migrate_source(None, objects.Instance(), wanted)


# What it reports, on libvirt's own test driver


class Held:
    """Nova's client of Placement, as far as the driver asks it.

    If ``mib`` is None, Placement does not answer.
    """

    mib: int | None = 0

    def get_allocations_for_resource_provider(self, _context: object, uuid: str) -> object:
        if self.mib is None:
            raise exception.ResourceProviderAllocationRetrievalFailed(rp_uuid=uuid, error="")
        half = {"resources": {"MEMORY_MB": self.mib // 2, "VCPU": 1}}
        return SimpleNamespace(
            allocations={"a": half, "b": half, "disk": {"resources": {"DISK_GB": 1}}}
        )


@pytest.fixture
def connected(
    tmp_path: Path, file_backed: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileBackedLibvirtDriver]:
    options = {
        ("virt_type", "libvirt"): "qemu",
        ("connection_uri", "libvirt"): "test:///default",
        ("ram_allocation_ratio", None): 1.0,
        ("reserved_host_memory_mb", None): 0,
        ("instances_path", None): str(tmp_path),
    }
    for (name, group), value in options.items():
        CONF.set_override(name, value, group=group)
    file_backed(2048)
    driver = FileBackedLibvirtDriver(SimpleNamespace(reportclient=Held()))
    # libvirt 11's test driver has some, without devices; Nova relies on QEMU's, which have them.
    monkeypatch.setattr(driver._host, "get_domain_capabilities", dict)  # noqa: SLF001
    yield driver
    for name, group in options:
        CONF.clear_override(name, group=group)


def test_the_provider_follows_the_hook(
    connected: FileBackedLibvirtDriver, file_backed: Callable[[int], None]
) -> None:
    tree = ProviderTree()
    tree.new_root("host", "9c2f6e0b-8c3e-4b0b-9d46-0a1e4f9b7a11")

    def reported(answer: HostAnswer | None) -> tuple[int | None, set[str]]:
        told(connected, answer).update_provider_tree(tree, "host")
        return provider.memory_mib(tree, "host"), {
            trait for trait in tree.data("host").traits if trait.startswith("CUSTOM_RAMSHELF")
        }

    small = replace(XFS, capacity_mib=1000)
    assert reported(None) == (2048, set())
    assert reported(small) == (1000, {"CUSTOM_RAMSHELF_STORE_DISK"})
    assert reported(None) == (1000, set())
    assert reported(UNMOUNTED) == (1000, set())
    assert reported(SWAP) == (2048, {"CUSTOM_RAMSHELF_STORE_SWAP"})
    file_backed(0)
    total, traits = reported(small)
    assert (total == connected._host.get_memory_mb_total(), traits) == (True, set())  # noqa: SLF001


def test_the_inventory_is_never_less_than_servers_hold(connected: FileBackedLibvirtDriver) -> None:
    tree = ProviderTree()
    tree.new_root("host", "9c2f6e0b-8c3e-4b0b-9d46-0a1e4f9b7a11")

    def reported(held_mib: int | None) -> int | None:
        connected.virtapi.reportclient.mib = held_mib
        told(connected, replace(XFS, capacity_mib=1000)).update_provider_tree(tree, "host")
        return provider.memory_mib(tree, "host")

    assert reported(1900) == 1900
    assert reported(None) == 1900  # as before
    assert [reported(held) for held in (1500, 1000, 10)] == [1500, 1000, 1000]
    assert reported(4000) == 2048  # what nova.conf says is not exceeded


def test_a_libvirt_without_the_hook_says_nothing(connected: FileBackedLibvirtDriver) -> None:
    assert connected._hook.answer() is None  # noqa: SLF001


# The compute service

OURS = "AUTO: ramshelf: "


@pytest.mark.parametrize(
    ("now", "problem", "wanted"),
    [
        ((False, None), None, (False, None)),
        ((False, None), "gone", (True, f"{OURS}gone")),
        ((True, f"{OURS}gone"), "gone", (True, f"{OURS}gone")),
        ((True, f"{OURS}gone"), "full", (True, f"{OURS}full")),
        ((True, f"{OURS}gone"), None, (False, None)),
        ((True, "maintenance"), "gone", (True, "maintenance")),
        ((True, "maintenance"), None, (True, "maintenance")),
        ((True, None), "gone", (True, None)),
        ((True, None), None, (True, None)),
        (
            (True, "AUTO: Connection to libvirt lost"),
            None,
            (True, "AUTO: Connection to libvirt lost"),
        ),
    ],
)
def test_the_service_is_disabled_for_a_problem_and_enabled_after_it(
    now: tuple[bool, str | None], problem: str | None, wanted: tuple[bool, str | None]
) -> None:
    assert service.decide(*now, problem) == wanted


def test_a_reason_is_no_longer_than_its_column() -> None:
    assert len(service.decide(False, None, "x" * 300)[1] or "") == 255
    assert all(
        len(service.decide(False, None, trouble(said))[1] or "") < 255 for said in (None, UNMOUNTED)
    )
    assert trouble(SWAP) is None


def test_of_two_looks_at_once_the_later_answer_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first is slow to tell the service what it has found, and the second has found better."""
    answers, begun, overtaken = iter([UNMOUNTED, SWAP]), threading.Event(), threading.Event()
    said: list[str | None] = []

    def reflect(trouble: str | None) -> None:
        if trouble is None:
            overtaken.set()
        else:
            begun.set()
            overtaken.wait(1)
        said.append(trouble)

    monkeypatch.setattr(service, "reflect", reflect)
    following = service.ComputeService(SimpleNamespace(answer=lambda: next(answers)))  # type: ignore[arg-type]
    looks = [threading.Thread(target=following.follow) for _ in range(2)]
    looks[0].start()
    assert begun.wait(60)
    looks[1].start()
    for look in looks:
        look.join()
    assert said == [trouble(UNMOUNTED), None]


# The resource provider


@pytest.fixture
def tree() -> ProviderTree:
    tree = ProviderTree()
    tree.new_root("host", "9c2f6e0b-8c3e-4b0b-9d46-0a1e4f9b7a11")
    memory = {"total": 4096, "max_unit": 4096, "min_unit": 1, "step_size": 1, "reserved": 0}
    tree.update_inventory("host", {"MEMORY_MB": memory, "VCPU": {"total": 4}})
    tree.add_traits("host", "COMPUTE_MEM_BACKING_FILE", "CUSTOM_OF_OTHERS")
    return tree


def test_the_trait_of_the_store_follows_the_store(tree: ProviderTree) -> None:
    others = {"COMPUTE_MEM_BACKING_FILE", "CUSTOM_OF_OTHERS"}
    for kind in (Kind.SWAP, Kind.DISK, None):
        provider.show_kind(tree, "host", kind)
        assert tree.data("host").traits == others | ({kind.trait} if kind else set())


@pytest.mark.parametrize(("most", "total"), [(8192, 4096), (4096, 4096), (3000, 3000)])
def test_memory_is_no_more_than_the_store_holds(tree: ProviderTree, most: int, total: int) -> None:
    provider.bound_memory(tree, "host", most)
    inventory = tree.data("host").inventory
    memory = inventory.pop("MEMORY_MB")
    assert (memory["total"], memory["max_unit"], memory["min_unit"]) == (total, total, 1)
    assert inventory == {"VCPU": {"total": 4}}
    assert provider.memory_mib(tree, "host") == total


def test_what_is_reserved_is_no_more_either(tree: ProviderTree) -> None:
    inventory = tree.data("host").inventory
    inventory["MEMORY_MB"]["reserved"] = 512
    tree.update_inventory("host", inventory)
    provider.bound_memory(tree, "host", 400)
    assert tree.data("host").inventory["MEMORY_MB"]["reserved"] == 400
