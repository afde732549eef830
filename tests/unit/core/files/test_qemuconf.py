"""libvirt's qemu.conf, read as libvirt reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.errors import ConfigError
from ramshelf.core.files.qemuconf import (
    DEFAULT_MEMORY_BACKING_DIR,
    Value,
    memory_directory,
    parse_qemu_conf,
    restore_memory_directory,
    set_memory_directory,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# memory_backing_dir = '/x'\n", {}),
        ('user = "root"\ngroup="root" # both\n', {"user": "root", "group": "root"}),
        ("user = 'a \"quoted\" one'", {"user": 'a "quoted" one'}),
        ('text = """two\nlines"""\nn = 1', {"text": "two\nlines", "n": 1}),
        ("a = -1\nb = +2\nc = 3; d = 4\n", {"a": -1, "b": 2, "c": 3, "d": 4}),
        ("namespaces = []\n", {"namespaces": ()}),
        ('acl = [\n  "/dev/null",\n  "/dev/kvm",\n]\n', {"acl": ("/dev/null", "/dev/kvm")}),
        ('path = "C:\\no\\escapes"\n', {"path": "C:\\no\\escapes"}),
        ("a = 1\na = 2\n", {"a": 1}),
    ],
)
def test_values(text: str, expected: dict[str, Value]) -> None:
    assert parse_qemu_conf(text) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("user root\n", 1),
        ("\n\nuser = \n", 3),
        ('user = "root\n', 1),
        ("a = 1\nuser = root\n", 2),
        ('a = ["x"\n', 1),
        ("= 1", 1),
        ("[qemu]\na = 1\n", 1),
    ],
)
def test_what_libvirt_refuses_is_refused(text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_qemu_conf(text, "/etc/qemu.conf")
    assert caught.value.facts == {"path": "/etc/qemu.conf", "line": line}


@pytest.mark.parametrize(
    ("conf", "path"),
    [
        ({}, DEFAULT_MEMORY_BACKING_DIR),
        ({"memory_backing_dir": "/srv/ram"}, "/srv/ram/libvirt/qemu"),
        ({"memory_backing_dir": "/srv/ram/"}, "/srv/ram/libvirt/qemu"),
        (
            {"memory_backing_dir": DEFAULT_MEMORY_BACKING_DIR},
            f"{DEFAULT_MEMORY_BACKING_DIR}/libvirt/qemu",
        ),
        ({"memory_backing_dir": 1}, DEFAULT_MEMORY_BACKING_DIR),
    ],
)
def test_where_guests_directories_appear(conf: dict[str, Value], path: str) -> None:
    assert memory_directory(conf).path == path


@given(
    st.text(alphabet="ab=# '\"\n", max_size=60),
    st.sampled_from(["", "memory_backing_dir = '/old'\n"]),
)
def test_setting_the_directory_is_undone_byte_for_byte(rest: str, old: str) -> None:
    text = f"{rest}\n{old}"
    changed = set_memory_directory(text, "/new")
    assert restore_memory_directory(changed) == text


def test_the_directory_that_was_set_is_the_one_that_counts() -> None:
    conf = parse_qemu_conf(set_memory_directory('user = "a"\nmemory_backing_dir = "/old"', "/new"))
    assert memory_directory(conf).configured == "/new"
