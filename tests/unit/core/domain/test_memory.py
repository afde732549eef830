"""A guest's memory files, by domain XML as libvirt gives it to the hook."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.domain.memory import Guest, parse_guest
from ramshelf.core.errors import InputError
from ramshelf.core.store.directory import directory_name, directory_names, guest_directory
from ramshelf.core.units import KIB, MIB

FILE = "<source type='file'/><access mode='shared'/>"
HUGE = "<hugepages/>"


def domain(
    backing: str = FILE,
    *,
    memory_kib: int = 262144,
    arch: str = "x86_64",
    machine: str = "pc-i440fx-7.2",
    cells: str = "",
    devices: str = "",
    top: str = "",
    domain_id: str = " id='3'",
) -> str:
    numa = f"<cpu><numa>{cells}</numa></cpu>" if cells else ""
    return f"""<domain type='qemu'{domain_id}>
      <name>guest</name><uuid>124a0e0e-2e35-4173-a394-011b3351155a</uuid>
      {top}<memory unit='KiB'>{memory_kib}</memory>
      <memoryBacking>{backing}</memoryBacking>
      <os><type arch='{arch}' machine='{machine}'>hvm</type></os>{numa}
      <devices>{devices}</devices>
    </domain>"""


def files(guest: Guest) -> list[tuple[str | None, int]]:
    return [(file.name, file.size // MIB) for file in guest.files]


def memory_device(
    model: str = "dimm",
    *,
    alias: str = "dimm0",
    access: str = "",
    source: str = "",
    node: int | None = 0,
    size_kib: int = 131072,
) -> str:
    target = f"<node>{node}</node>" if node is not None else ""
    return (
        f"<memory model='{model}'{access}>{source}<target><size "
        f"unit='KiB'>{size_kib}</size>{target}</target><alias name='{alias}'/></memory>"
    )


@pytest.mark.parametrize(
    ("backing", "expected"),
    [
        (FILE, [("pc.ram", 256)]),
        ("<source type='file'/>", [("pc.ram", 256)]),
        ("<access mode='shared'/>", [("pc.ram", 256)]),
        ("<access mode='private'/>", [("pc.ram", 256)]),
        ("<source type='anonymous'/><access mode='shared'/>", [("pc.ram", 256)]),
        ("<source type='anonymous'/>", []),
        ("<source type='memfd'/><access mode='shared'/>", []),
        ("", []),
        ("<locked/>", []),
        (HUGE + FILE, []),
        (HUGE, []),
        ("<hugepages><page size='4' unit='KiB'/></hugepages>" + FILE, [("pc.ram", 256)]),
        ("<hugepages><page size='2048' unit='KiB' nodeset='0'/></hugepages>" + FILE, []),
    ],
)
def test_which_backing_is_a_file(backing: str, expected: list[tuple[str, int]]) -> None:
    guest = parse_guest(domain(backing))
    assert files(guest) == expected
    assert guest.file_backed is bool(expected)


def test_pages_of_the_systems_own_size_are_not_huge() -> None:
    backing = "<hugepages><page size='64' unit='KiB'/></hugepages>" + FILE
    assert parse_guest(domain(backing)).hugepages
    assert not parse_guest(domain(backing), page_size=64 * KIB).hugepages


@pytest.mark.parametrize(
    ("arch", "machine", "name"),
    [
        ("x86_64", "pc-q35-9.2", "pc.ram"),
        ("x86_64", "pc-i440fx-jammy", "pc.ram"),
        ("x86_64", "isapc", "pc.ram"),
        ("x86_64", "microvm", "microvm.ram"),
        ("x86_64", "x-remote", None),
        ("i686", "pc-i440fx-7.2", "pc.ram"),
        ("aarch64", "virt-7.2", "mach-virt.ram"),
        ("armv7l", "virt-7.2", "mach-virt.ram"),
        ("aarch64", "sbsa-ref", None),
        ("ppc64le", "pseries-7.2", "ppc_spapr.ram"),
        ("ppc64", "powernv9", "pnv.ram"),
        ("s390x", "s390-ccw-virtio-7.2", "s390.ram"),
        ("riscv64", "virt", "riscv_virt_board.ram"),
        ("loongarch64", "virt", "loongarch.ram"),
        ("sparc64", "sun4u", None),
    ],
)
def test_memory_id_of_a_machine(arch: str, machine: str, name: str | None) -> None:
    assert files(parse_guest(domain(arch=arch, machine=machine))) == [(name, 256)]


def test_sizes_are_aligned_as_libvirt_does() -> None:
    assert files(parse_guest(domain(memory_kib=262145))) == [("pc.ram", 257)]
    assert files(parse_guest(domain(memory_kib=262145, arch="ppc64le", machine="pseries"))) == [
        ("ppc_spapr.ram", 512)
    ]


def test_memory_devices_are_aligned_to_more() -> None:
    """To 2 MiB, as libvirt and QEMU do: what is mapped is more than <size> says in a definition."""
    cells = "<cell id='0' cpus='0' memory='131073'/>"
    device = memory_device(size_kib=66049)
    guest = parse_guest(domain(cells=cells, memory_kib=131073 + 66049, devices=device))
    assert files(guest) == [("ram-node0", 129), ("dimm0", 66)]


def test_numa_cells_are_files_each_by_its_own_access() -> None:
    cells = (
        "<cell id='0' cpus='0' memory='131072' unit='KiB' memAccess='shared'/>"
        "<cell id='1' memory='131073' unit='KiB'/>"
    )
    assert files(parse_guest(domain("", cells=cells))) == [("ram-node0", 128)]
    assert files(parse_guest(domain("<source type='file'/>", cells=cells))) == [
        ("ram-node0", 128),
        ("ram-node1", 129),
    ]
    assert files(parse_guest(domain("<source type='memfd'/>", cells=cells))) == []


@pytest.mark.parametrize(
    ("nodeset", "expected"),
    [
        ("0", ["ram-node1"]),
        ("1", ["ram-node0"]),
        ("0-1", []),
        ("0-7,^0", ["ram-node0"]),
        ("5", ["ram-node0", "ram-node1"]),
    ],
)
def test_huge_pages_of_a_cell_win_over_the_file(nodeset: str, expected: list[str]) -> None:
    cells = "<cell id='0' cpus='0' memory='131072'/><cell id='1' memory='131072'/>"
    page = f"<hugepages><page size='2048' unit='KiB' nodeset='{nodeset}'/></hugepages>"
    guest = parse_guest(domain(page + FILE, cells=cells))
    assert [file.name for file in guest.files] == expected
    assert guest.hugepages is (len(expected) < 2)


def test_huge_pages_of_one_cell_leave_the_other_pinned() -> None:
    cells = "<cell id='0' cpus='0' memory='131072'/><cell id='1' memory='262144'/>"
    page = "<hugepages><page size='2048' unit='KiB' nodeset='{}'/></hugepages><locked/>"
    for nodes, huge, pinned in (("0", 128, 256), ("1", 256, 128), ("0-1", 384, 0)):
        guest = parse_guest(domain(page.format(nodes), cells=cells, memory_kib=393216))
        assert (guest.huge_bytes // MIB, guest.pinned // MIB) == (huge, pinned)


def test_where_pages_of_the_systems_size_are_named_none_is_huge_for_certain() -> None:
    """Found at random, with an NVMe disk: pc-i440fx-2.11 took the first size for all cells."""
    cells = "<cell id='0' cpus='0' memory='131072'/><cell id='1' memory='131072'/>"
    pages = (
        "<hugepages><page size='4' unit='KiB' nodeset='1'/><page size='1' "
        "unit='G'/></hugepages><locked/>"
    )
    guest = parse_guest(domain(pages, cells=cells, machine="pc-i440fx-2.11"))
    assert guest.hugepages
    assert (guest.huge_bytes, guest.pinned) == (0, guest.memory)


def test_pages_for_all_cells_and_others_for_one() -> None:
    cells = "<cell id='0' cpus='0' memory='131072'/><cell id='1' memory='131072'/>"
    pages = (
        "<hugepages><page size='1' unit='G'/><page size='4' unit='KiB' nodeset='1'/></hugepages>"
    )
    assert files(parse_guest(domain(pages + FILE, cells=cells))) == [("ram-node1", 128)]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (memory_device(), [("ram-node0", 256), ("dimm0", 128)]),
        (
            memory_device("virtio-mem", alias="virtiomem0"),
            [("ram-node0", 256), ("virtiomem0", 128)],
        ),
        (memory_device(alias="ua-mine"), [("ram-node0", 256), ("ua-mine", 128)]),
        (
            memory_device("nvdimm", source="<source><path>/pmem</path></source>"),
            [("ram-node0", 256)],
        ),
        (
            memory_device("virtio-pmem", source="<source><path>/pmem</path></source>"),
            [("ram-node0", 256)],
        ),
        (memory_device("sgx-epc"), [("ram-node0", 256)]),
        (
            memory_device(source="<source><pagesize unit='KiB'>2048</pagesize></source>"),
            [("ram-node0", 256)],
        ),
        (
            memory_device(source="<source><pagesize unit='KiB'>4</pagesize></source>"),
            [("ram-node0", 256), ("dimm0", 128)],
        ),
    ],
)
def test_memory_devices(device: str, expected: list[tuple[str, int]]) -> None:
    cells = "<cell id='0' cpus='0' memory='262144'/>"
    assert files(parse_guest(domain(cells=cells, memory_kib=393216, devices=device))) == expected


def test_a_device_has_the_access_of_its_own_then_of_its_cell() -> None:
    cells = (
        "<cell id='0' cpus='0' memory='262144'/><cell id='1' memory='262144' memAccess='shared'/>"
    )
    device = (
        memory_device(access=" access='shared'")
        + memory_device(alias="dimm1", node=1)
        + memory_device(alias="dimm2")
    )
    guest = parse_guest(domain("", cells=cells, memory_kib=917504, devices=device))
    assert [file.name for file in guest.files] == ["ram-node1", "dimm0", "dimm1"]


@pytest.mark.parametrize(
    ("backing", "private"),
    [
        (FILE, 0),
        ("<source type='file'/>", 256),
        ("<source type='file'/><access mode='private'/>", 256),
        ("<access mode='private'/>", 256),
        ("<source type='memfd'/>", 0),
        ("", 0),
    ],
)
def test_a_file_without_shared_access_is_mapped_privately(backing: str, private: int) -> None:
    assert parse_guest(domain(backing)).private_bytes == private * MIB


def test_cells_and_devices_may_be_mapped_privately_by_themselves() -> None:
    cells = (
        "<cell id='0' cpus='0' memory='262144'/><cell id='1' memory='131072' memAccess='private'/>"
        "<cell id='2' memory='65536' memAccess='shared'/>"
    )
    devices = memory_device(access=" access='private'", size_kib=32768) + memory_device(
        alias="dimm1", size_kib=16384
    )
    guest = parse_guest(domain(FILE, cells=cells, memory_kib=507904, devices=devices))
    assert [file.name for file in guest.files if file.private] == ["ram-node1", "dimm0"]
    assert guest.private_bytes == (128 + 32) * MIB


def test_what_may_be_plugged_in_is_mapped_as_the_guests_own_memory() -> None:
    top = "<maxMemory slots='4' unit='KiB'>1048576</maxMemory>"
    cells = "<cell id='0' cpus='0' memory='262144'/>"
    assert (
        parse_guest(domain("<source type='file'/>", cells=cells, top=top)).private_bytes
        == 1024 * MIB
    )
    assert parse_guest(domain(FILE, cells=cells, top=top)).private_bytes == 0


@pytest.mark.parametrize(
    ("model", "paged"),
    [("dimm", 384), ("virtio-mem", 384), ("nvdimm", 256), ("virtio-pmem", 256), ("sgx-epc", 256)],
)
def test_memory_that_a_device_brings_along_is_not_the_systems(model: str, paged: int) -> None:
    guest = parse_guest(domain(memory_kib=393216, devices=memory_device(model, node=None)))
    assert guest.paged == paged * MIB


def test_memory_that_devices_have_for_the_guest_counts() -> None:
    devices = (
        "<shmem name='s'><model type='ivshmem-plain'/><size unit='M'>64</size></shmem>"
        "<shmem name='t'><model type='ivshmem-doorbell'/></shmem>"
        "<video><model type='qxl' ram='65536' vram='32768' vram64='131072' vgamem='16384'/></video>"
        "<video><model type='vga' vram='16384'/></video><video><model type='none'/></video>"
    )
    assert parse_guest(domain(FILE, devices=devices)).paged == (256 + 64 + 64 + 128 + 16) * MIB


@pytest.mark.parametrize("model", ["dimm", "nvdimm", "virtio-mem", "virtio-pmem", "sgx-epc"])
def test_every_device_counts_towards_the_memory(model: str) -> None:
    """Without NUMA cells the main memory is what devices leave (virDomainDefGetMemoryInitial)."""
    guest = parse_guest(domain(memory_kib=393216, devices=memory_device(model, node=None)))
    assert files(guest)[0] == ("pc.ram", 256)


def test_what_may_be_plugged_in_is_promised() -> None:
    top = "<maxMemory slots='4' unit='KiB'>1048576</maxMemory>"
    cells = "<cell id='0' cpus='0' memory='262144'/>"
    guest = parse_guest(domain(cells=cells, memory_kib=393216, devices=memory_device(), top=top))
    assert (guest.file_bytes, guest.hotplug, guest.promise) == (384 * MIB, 640 * MIB, 1024 * MIB)
    assert parse_guest(domain("", top=top)).promise == 0


def test_live_state_file_of_libvirt() -> None:
    text = f"<domstatus state='running' pid='1'>{domain()}</domstatus>"
    guest = parse_guest(text)
    assert (guest.name, guest.domain_id, files(guest)) == ("guest", 3, [("pc.ram", 256)])
    assert parse_guest(domain(domain_id="")).domain_id is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "xml.malformed"),
        ("guest", "xml.malformed"),
        ("<network/>", "xml.not-a-domain"),
        ("<domstatus/>", "xml.not-a-domain"),
        ("<domain/>", "xml.memory"),
        ("<domain><memory unit='furlong'>1</memory></domain>", "xml.memory"),
        ("<domain><memory>-1</memory></domain>", "xml.memory"),
        ("<domain><memory>1_000</memory></domain>", "xml.memory"),
        ("<domain><memory>\u0663</memory></domain>", "xml.memory"),
        (f"<domain><memory>{'9' * 5000}</memory></domain>", "xml.memory"),
        (domain(memory_kib=1, devices=memory_device(node=None)), "xml.memory"),
        (
            domain("<hugepages><page nodeset='x'/></hugepages>", cells="<cell memory='1'/>"),
            "xml.memory",
        ),
    ],
)
def test_unusable_xml(text: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_guest(text)
    assert caught.value.code == code


def test_a_billion_laughs_are_not_expanded() -> None:
    entities = "".join(
        f"<!ENTITY l{number} '{f'&l{number - 1};' * 10}'>" for number in range(1, 10)
    )
    with pytest.raises(InputError):
        parse_guest(
            f"<!DOCTYPE d [<!ENTITY l0 '{'ha' * 50}'>{entities}]><domain><name>&l9;</name></domain>"
        )


def test_directory_names() -> None:
    assert directory_name(7, "a" * 30) == "7-" + "a" * 20
    assert guest_directory("/ram", 7, "guest") == "/ram/7-guest"
    assert directory_names(7, "guest") == ("7-guest",)
    assert directory_names(7, "ü" * 30) == ("7-" + "ü" * 20, "7-" + "ü" * 10)


@given(st.integers(0, 9999), st.text(min_size=1).filter(lambda name: name.isprintable()))
def test_the_name_cut_by_bytes_is_twenty_bytes(number: int, name: str) -> None:
    for entry in directory_names(number, name):
        assert entry.startswith(f"{number}-")
    cut = directory_names(number, name)[-1].partition("-")[2]
    assert name.encode().startswith(cut.encode(errors="surrogateescape"))
    assert len(cut.encode(errors="surrogateescape")) <= 20


@pytest.mark.parametrize(
    ("unit", "size"), [("PiB", 1 << 50), ("P", 1 << 50), ("PB", 10**15), ("EiB", 1 << 60)]
)
def test_units_that_libvirt_takes(unit: str, size: int) -> None:
    assert parse_guest(f"<domain><memory unit='{unit}'>1</memory></domain>").memory == size
