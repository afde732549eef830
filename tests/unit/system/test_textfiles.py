"""Files that others edit too are changed in place, whole, and never with two changes mixed."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ramshelf.core.errors import RefusedError
from ramshelf.system import textfiles
from ramshelf.system.textfiles import change_text, write_atomically


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfiles, "LOCK", str(tmp_path / "run" / "lock"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc" / "fstab"


def test_written_whole_or_not_at_all(path: Path) -> None:
    write_atomically(path, "one\n", mode=0o755)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("one\n", 0o755)
    with pytest.raises(TypeError):
        write_atomically(path, 7)  # type: ignore[arg-type]
    assert path.read_text() == "one\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["fstab"]


def test_what_a_crash_has_left_is_taken_up(path: Path) -> None:
    (path.parent / ".fstab.ramshelf").write_text("half of something much longer")
    write_atomically(path, "one\n")
    assert path.read_text() == "one\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["fstab"]


def test_no_link_is_followed_to_the_temporary_file(path: Path) -> None:
    precious = path.parent.parent / "precious"
    precious.write_text("precious")
    (path.parent / ".fstab.ramshelf").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(path, "one\n")
    assert precious.read_text() == "precious"


def test_a_link_stays_one_and_the_mode_stays(path: Path) -> None:
    real = path.parent / "real"
    real.write_text("one\n")
    real.chmod(0o640)
    path.symlink_to(real)
    change_text(path, lambda text: f"{text}two\n")
    assert (path.is_symlink(), real.read_text(), real.stat().st_mode & 0o777) == (
        True,
        "one\ntwo\n",
        0o640,
    )


def test_the_temporary_file_can_lie_elsewhere(path: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def look() -> bool:
        seen.extend(entry.name for entry in path.parent.iterdir())
        return True

    write_atomically(path, "one\n", beside=tmp_path, only_if=look)
    assert (seen, path.read_text()) == ([], "one\n")


def test_no_file_before_and_after(path: Path) -> None:
    asked: list[str | None] = []

    def change(text: str | None) -> str | None:
        asked.append(text)
        return "one\n" if text is None else None

    change_text(path, change)
    assert path.read_text() == "one\n"
    change_text(path, change)
    assert not path.exists()
    assert asked == [None, "one\n"]


def test_a_change_that_changes_nothing_leaves_the_file_untouched(path: Path) -> None:
    path.write_text("one\n")
    before = path.stat()
    change_text(path, lambda text: text)
    assert path.stat() == before


@pytest.mark.parametrize("by_rename", [False, True])
@pytest.mark.parametrize("removes", [False, True])
def test_what_others_add_meanwhile_is_in_the_outcome(
    path: Path, *, by_rename: bool, removes: bool
) -> None:
    """Somebody saves the file after it was read: in place, or as editors do."""
    path.write_text("ours\n")
    edits = iter(["theirs\n"])

    def change(text: str | None) -> str | None:
        for added in edits:
            if by_rename:
                other = path.with_name("fstab~")
                other.write_text(f"{text}{added}")
                other.rename(path)
            else:
                with path.open("a") as file:
                    file.write(added)
        rest = (text or "").replace("ours\n", "")
        return rest if rest or not removes else None

    change_text(path, change)
    assert path.read_text() == "theirs\n"


def test_who_is_never_quick_enough_gives_up(path: Path) -> None:
    path.write_text("")
    count = 0

    def change(text: str | None) -> str:
        nonlocal count
        count += 1
        path.write_text(f"{count}\n")
        return f"{text}ours\n"

    with pytest.raises(RefusedError) as caught:
        change_text(path, change)
    assert (caught.value.code, caught.value.facts["path"]) == ("file.changed", str(path))
    assert path.read_text() == f"{count}\n"


def test_a_change_of_the_same_length_at_the_same_time_is_seen(path: Path) -> None:
    path.write_text("a\n")
    status = path.stat()
    changes = iter(["b\n"])

    def change(text: str | None) -> str:
        for other in changes:
            path.write_text(other)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return f"{text}ours\n"

    change_text(path, change)
    assert path.read_text() == "b\nours\n"


def test_many_at_once_lose_nothing(path: Path) -> None:
    """By threads and by processes."""
    path.write_text("")
    program = (
        f"from ramshelf.system import textfiles\ntextfiles.LOCK = {textfiles.LOCK!r}\nfor n in "
        f"range(30): textfiles.change_text({str(path)!r}, lambda text: text + 'process\\n')\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]

    def add() -> None:
        for _ in range(30):
            change_text(path, lambda text: f"{text}thread\n")

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    lines = path.read_text().splitlines()
    assert (lines.count("thread"), lines.count("process")) == (60, 60)


def test_two_that_write_at_once_do_not_mix(path: Path) -> None:
    texts = {letter * 200_000 for letter in "ab"}

    def write(text: str) -> None:
        for _ in range(20):
            write_atomically(path, text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert [entry.name for entry in path.parent.iterdir()] == ["fstab"]
