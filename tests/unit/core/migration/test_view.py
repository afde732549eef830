import pytest

from ramshelf.core.migration.answer import HostAnswer
from ramshelf.core.migration.view import differences, other_view
from ramshelf.core.record import replace
from ramshelf.core.store.kind import Kind

HERE = HostAnswer(
    kernel="6.12",
    kind=Kind.DISK,
    fstype="ext4",
    device="254:16",
    configured=True,
    capacity_mib=2048,
    reserved_mib=512,
)


def test_what_changes_while_guests_come_and_go_is_no_difference() -> None:
    hook = replace(HERE, capacity_mib=2040, promised_mib=128, free_mib=100, resident_mib=7)
    assert differences(hook, HERE) == ()


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (
            replace(HERE, kind=None, fstype=None, device=None, problem="store.root-file-system"),
            "it sees no store (store.root-file-system), and here is a disk store (ext4, 254:16)",
        ),
        (
            replace(HERE, device="254:0"),
            "it sees a disk store (ext4, 254:0), and here is a disk store (ext4, 254:16)",
        ),
        (
            replace(HERE, configured=False),
            "file_backed_memory is not set for it, and set here",
        ),
        (replace(HERE, off=True), "file_backed_memory is 0 for it, and set here"),
        (
            replace(HERE, reserved_mib=1024),
            "host_reserved_memory_mb is 1024 for it, and 512 here",
        ),
    ],
    ids=["no-store", "another-store", "no-limit", "off", "reserved"],
)
def test_what_the_hook_sees_otherwise_is_said(hook: HostAnswer, said: str) -> None:
    assert differences(hook, HERE) == (said,)
    assert said in other_view(differences(hook, HERE))
