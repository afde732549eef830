"""Files that a store's plans edit: fstab, qemu.conf, units, sysctl.d; and what tools print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.errors import RamshelfError, ToolError
from ramshelf.core.files.fstab import Entry, add_entries, parse_fstab, remove_own
from ramshelf.core.files.qemuconf import (
    memory_directory,
    parse_qemu_conf,
    restore_memory_directory,
    set_memory_directory,
)
from ramshelf.core.plan import Run
from ramshelf.core.store.boot import (
    Sysctl,
    attach_command,
    escape_path,
    loop_unit,
    parse_sysctl_text,
    sysctl_text,
)
from ramshelf.core.store.clean import stale, unchanged
from ramshelf.core.store.directory import GuestDirectory
from ramshelf.core.store.facts import Signature
from ramshelf.node.apply import apply
from ramshelf.system.blockdevice import parse_signatures

OWN = Entry(
    spec="ramshelf", mount_point="/m", fstype="tmpfs", options=("size=1k", "x-ramshelf.kind=ram")
)
LINES = st.lists(
    st.sampled_from(
        [
            "# comment",
            "",
            "UUID=1 / ext4 defaults 0 1",
            "\ttmpfs\t/t\ttmpfs",
            "a b c x-other",
            "broken",
            "x\r",
        ]
    )
)
CONF_LINES = st.lists(
    st.sampled_from(
        [
            "# c",
            "",
            'user = "qemu"',
            'memory_backing_dir = "/a"',
            "  memory_backing_dir='/b'  # why",
            "#x",
        ]
    )
)


@given(LINES)
def test_fstab_round_trip(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    added = add_entries(text, (OWN,))
    assert added.startswith(text)
    assert parse_fstab(added)[-1] == OWN
    assert remove_own(added) == text
    assert remove_own(text) == text


@given(CONF_LINES)
def test_qemu_conf_round_trip(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    changed = set_memory_directory(text, "/srv/ram")
    assert memory_directory(parse_qemu_conf(changed)).configured == "/srv/ram"
    assert restore_memory_directory(changed) == text
    assert restore_memory_directory(text) == text
    others = {
        key: value for key, value in parse_qemu_conf(text).items() if key != "memory_backing_dir"
    }
    assert others.items() <= parse_qemu_conf(changed).items()


def test_the_first_of_repeated_keys_counts() -> None:
    assert parse_qemu_conf('user = "a"\nuser = "b"; group = "c"\nmax_core = +5') == {
        "user": "a",
        "group": "c",
        "max_core": 5,
    }


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/srv/ram-1", r"srv-ram\x2d1.mount"),
        ("/", "-.mount"),
        ("/.hidden/a_b:c.d", r"\x2ehidden-a_b:c.d.mount"),
        ("/a@b+c", r"a\x40b\x2bc.mount"),
    ],
)
def test_systemd_names(path: str, unit: str) -> None:
    assert escape_path(path, "mount") == unit


def test_loop_unit_holds_the_command_that_create_runs() -> None:
    assert attach_command("/srv/a", 4096).replace("$", "$$") in loop_unit("/srv/a", 4096)
    assert "RequiresMountsFor=/srv\n" in loop_unit("/srv/a", 4096)
    assert "After=systemd-remount-fs.service\n" in loop_unit("/a", 4096)
    assert "RequiresMountsFor=/\n" in loop_unit("/a", 4096)


def test_sysctl_file_round_trip() -> None:
    settings = (
        Sysctl(key="vm.page-cluster", value=0, reason="Why.", before=3),
        Sysctl(key="vm.swappiness", value=100, reason="Why else.", before=60),
    )
    assert parse_sysctl_text(sysctl_text(settings)) == settings


def test_signatures() -> None:
    output = """{"signatures": [
      {"device": "vdb", "offset": "0x0", "type": "xfs", "uuid": "1", "label": null},
      {"device": "vdb", "offset": "0x1fe", "type": "dos", "uuid": null, "label": null}]}"""
    assert parse_signatures(output) == (Signature(type="xfs", uuid="1"), Signature(type="dos"))
    assert [found.complete for found in parse_signatures(output, complete=False)] == [False, True]
    assert parse_signatures("") == ()


def listed(name: str, *, inode: int = 2, changed: int = 3) -> GuestDirectory:
    return GuestDirectory(
        path=f"/m/{name}", device=(0, 1), uid=1, gid=1, inode=inode, changed=changed
    )


def test_stale_is_what_no_active_guest_owns() -> None:
    gone, alive, cut = listed("1-gone"), listed("2-alive"), listed("3-a-very-long-name-ind")
    active = [(2, "alive"), (3, "a-very-long-name-indeed-it-is")]
    assert stale([gone, alive, cut], active) == (gone,)
    assert stale([listed("2-gone")], active) == (listed("2-gone"),)


def test_a_guest_whose_number_is_not_known_owns_what_has_its_name() -> None:
    assert stale([listed("1-odd"), listed("22-odd"), listed("3-odder")], [(None, "odd")]) == (
        listed("3-odder"),
    )


def test_only_what_was_judged_and_has_not_changed_is_removed() -> None:
    assert unchanged(listed("1-a"), listed("1-a"))
    assert not unchanged(listed("1-a"), listed("1-a", inode=9))
    assert not unchanged(listed("1-a"), listed("1-a", changed=9))


def test_interrupted_and_failed_steps_say_how_to_go_on() -> None:
    def interrupted(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    def failed(*_: object, **__: object) -> object:
        raise ToolError("tool.failed", "mkswap failed.")

    steps = (Run(why="Make the swap area", argv=("mkswap",)),)
    for noun in ("store", "hook", "agent"):
        with pytest.raises(
            RamshelfError, match=r"Interrupted in step 1 of 1 \(Make the swap area\)"
        ) as raised:
            apply(steps, noun=noun, runner=interrupted)  # type: ignore[arg-type]
        assert raised.value.code == f"{noun}.interrupted"
        assert raised.value.exit_status == 130
        assert f"'ramshelf {noun} remove' takes all back" in raised.value.hint
        with pytest.raises(ToolError) as error:
            apply(steps, noun=noun, runner=failed)  # type: ignore[arg-type]
        assert "goes on from there" in error.value.hint


def test_a_device_that_is_busy_for_a_moment() -> None:
    tries = []

    def busy(argv: tuple[str, ...], **_: object) -> object:
        tries.append(argv)
        if len(tries) < 3:
            raise ToolError("tool.failed", "Device or resource busy.")
        return None

    apply((Run(why="Wipe", argv=("wipefs",), patience=60),), noun="store", runner=busy)  # type: ignore[arg-type]
    assert len(tries) == 3
