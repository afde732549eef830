"""Memory backends of qemu:commandline."""

import pytest

from ramshelf.core.domain.own_backends import OwnBackend, own_backends
from ramshelf.core.units import MIB


def domain(*arguments: str) -> str:
    args = "".join(f"<qemu:arg value='{argument}'/>" for argument in arguments)
    return (
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>"
        f"<qemu:commandline>{args}</qemu:commandline></domain>"
    )


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("memory-backend-file,id=m,mem-path=/ram/own,size=64M,share=on", 64 * MIB),
        ("qom-type=memory-backend-file,mem-path=/ram/own,size=1.5G", 1536 * MIB),
        ("memory-backend-file,mem-path=/ram/own,size=4096", 4096),
        ("memory-backend-file,mem-path=/ram/own,size=0x4000000", 64 * MIB),
        ("memory-backend-file,mem-path=/ram/own,size=much", 0),
        (f"memory-backend-file,mem-path=/ram/own,size={'9' * 400}", 0),
        ("memory-backend-file,mem-path=/ram/own", 0),
        (
            (
                '{"qom-type": "memory-backend-file", "id": "m", "mem-path": "/ram/own", "size":'
                " 67108864}"
            ),
            64 * MIB,
        ),
    ],
)
def test_it_is_seen_in_qemu_s_notation_and_in_json(value: str, size: int) -> None:
    assert own_backends(domain("-object", value)) == (OwnBackend(path="/ram/own", size=size),)
    assert own_backends(f"<domstatus>{domain('-object', value)}</domstatus>")[0].size == size


def test_two_commas_are_one_in_a_path() -> None:
    [found] = own_backends(domain("-object", "memory-backend-file,mem-path=/ram/a,,b,size=1M"))
    assert found.path == "/ram/a,b"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-object", "memory-backend-ram,id=m,size=64M"),
        ("-object", "memory-backend-file,id=m,size=64M"),
        ("-object", '{"qom-type": '),
        ("-object",),
        ("-device", "memory-backend-file,mem-path=/ram/own,size=64M"),
    ],
)
def test_what_is_none(arguments: tuple[str, ...]) -> None:
    assert own_backends(domain(*arguments)) == ()
