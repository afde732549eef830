"""Plans carried out on files that others change meanwhile."""

from pathlib import Path

import pytest

from ramshelf.core.errors import RefusedError
from ramshelf.core.files.fstab import Entry, OwnEntries
from ramshelf.core.files.qemuconf import OwnDirectory, memory_directory, parse_qemu_conf
from ramshelf.core.plan import (
    Action,
    CopyFiles,
    EditFile,
    RemoveFile,
    RemoveTree,
    SetValue,
    WriteFile,
)
from ramshelf.node.apply import apply
from ramshelf.system import textfiles

ENTRY = Entry(
    spec="ramshelf", mount_point="/m", fstype="tmpfs", options=("size=1k", "x-ramshelf.kind=ram")
)


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfiles, "LOCK", str(tmp_path / "run" / "lock"))


def carry_out(*actions: Action) -> None:
    apply(actions, noun="store")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_an_edit_is_made_in_the_text_that_is_there(path: Path) -> None:
    add = EditFile(why="", path=str(path), edit=OwnEntries(entries=(ENTRY,)), before="one\n")
    take = EditFile(why="", path=str(path), edit=OwnEntries(), before=add.text, or_gone=True)
    assert add.lines()[-1] == f"+{ENTRY.line().rstrip()}"
    path.write_text("one\ntwo\n")
    carry_out(add, add)
    assert path.read_text() == f"one\ntwo\n{ENTRY.line()}"
    with path.open("a") as file:
        file.write("three\n")
    carry_out(take, take)
    assert path.read_text() == "one\ntwo\nthree\n"


def test_a_setting_is_made_in_the_text_that_is_there(path: Path) -> None:
    put = EditFile(why="", path=str(path), edit=OwnDirectory(directory="/srv/ram"), before="")
    path.write_text('user = "x"\nmemory_backing_dir = "/a"\n')
    carry_out(put, put)
    assert memory_directory(parse_qemu_conf(path.read_text())).configured == "/srv/ram"
    carry_out(EditFile(why="", path=str(path), edit=OwnDirectory(), before=put.text))
    assert path.read_text() == 'user = "x"\nmemory_backing_dir = "/a"\n'


def test_a_file_that_was_made_by_an_edit_goes_where_nothing_else_came_into_it(path: Path) -> None:
    add = EditFile(why="", path=str(path), edit=OwnEntries(entries=(ENTRY,)), before=None)
    take = EditFile(why="", path=str(path), edit=OwnEntries(), before=add.text, or_gone=True)
    assert take.lines()[:2] == (f"--- {path}", "+++ /dev/null")
    carry_out(add, take)
    assert not path.exists()
    carry_out(take, add)
    path.write_text("theirs\n" + path.read_text())
    carry_out(take)
    assert path.read_text() == "theirs\n"


def test_the_last_line_gets_its_end_back(path: Path) -> None:
    edit = EditFile(why="", path=str(path), edit=OwnEntries(), before=None, original="one")
    for text, expected in (
        (f"one\n{ENTRY.line()}", "one"),
        (f"one\ntwo\n{ENTRY.line()}", "one\ntwo\n"),
    ):
        path.write_text(text)
        carry_out(edit)
        assert path.read_text() == expected


@pytest.mark.parametrize("before", [None, "old\n"])
def test_a_file_of_ramshelfs_own_is_written_only_over_what_the_plan_has_seen(
    path: Path, before: str | None
) -> None:
    write = WriteFile(why="", path=str(path), text="new\n", before=before)
    if before is not None:
        path.write_text(before)
    carry_out(write, write)
    assert path.read_text() == "new\n"
    path.write_text("theirs\n")
    for action in (write, RemoveFile(why="", path=str(path), before="new\n")):
        with pytest.raises(RefusedError) as caught:
            carry_out(action)
        assert (caught.value.code, caught.value.facts["path"]) == ("file.changed", str(path))
        assert "same command again" in caught.value.hint
        assert path.read_text() == "theirs\n"


def test_a_file_is_removed_once(path: Path) -> None:
    remove = RemoveFile(why="", path=str(path), before="ours\n")
    path.write_text("ours\n")
    carry_out(remove, remove)
    assert not path.exists()


def test_a_back_up_goes_only_where_the_file_is_as_it_was(path: Path) -> None:
    backup = path.with_name("backup")
    backup.write_text("one")
    remove = RemoveFile(why="", path=str(backup), before="one", copy_of=str(path))
    path.write_text("one\ntwo\n")
    carry_out(remove)
    assert backup.exists()
    path.write_text("one\n")
    carry_out(remove)
    assert not backup.exists()


def test_a_kernel_setting_is_put_only_over_what_the_plan_has_seen(path: Path) -> None:
    change = SetValue(why="", path=str(path), value="100", before="60")
    path.write_text("60\n")
    carry_out(change, change)
    assert path.read_text() == "100\n"
    path.write_text("77\n")
    with pytest.raises(RefusedError, match="changed"):
        carry_out(change)
    assert path.read_text() == "77\n"


def test_a_directory_of_copies_has_these_files_and_no_others(tmp_path: Path) -> None:
    place = tmp_path / "copy"
    copy = CopyFiles(why="", source="/site", path=str(place), files={"a/b.py": "1\n", "c": "2\n"})
    carry_out(copy)
    (place / "a" / "b.py").write_text("edited")
    (place / "a" / "b.py").chmod(0o666)
    (place / "a").chmod(0o777)
    (place / "added").touch()
    carry_out(copy)
    found = {
        str(path.relative_to(place)): path.read_text()
        for path in place.rglob("*")
        if path.is_file()
    }
    assert found == copy.files
    assert {path.stat().st_mode & 0o777 for path in place.rglob("*")} == {0o755, 0o644}
    carry_out(RemoveTree(why="", path=str(place)), RemoveTree(why="", path=str(place)))
    assert not place.exists()
