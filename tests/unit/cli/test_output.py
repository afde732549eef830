import pytest

from ramshelf.cli.context import Context
from ramshelf.cli.output import Bytes, fields, plan, print_table, table
from ramshelf.core.plan import Run, SetValue


def test_numbers_stand_to_the_right_and_nothing_is_a_dash() -> None:
    assert (
        table(("GUEST", "MiB", "NOTE"), [("web", 512, None), ("database", 16384, "x")])
        == "GUEST       MiB  NOTE\nweb         512  -\ndatabase  16384  x"
    )


def test_sizes_have_a_unit_and_stand_to_the_right() -> None:
    assert (
        table(("GUEST", "USED"), [("web", Bytes(512 << 20)), ("db", Bytes(12800 << 20))])
        == "GUEST      USED\nweb     512 MiB\ndb     12.5 GiB"
    )
    assert (
        fields([("used", Bytes(0)), ("free", Bytes(3 << 19)), ("kind", "ram")])
        == "used      0 B\nfree  1.5 MiB\nkind  ram"
    )


def test_without_rows_the_header_alone() -> None:
    assert table(("GUEST", "MiB"), []) == "GUEST  MiB"


def test_a_table_without_its_header_is_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context(no_headers=True)
    print_table(context, ("GUEST", "MiB"), [("web", 512), ("database", 1)])
    assert capsys.readouterr().out == "web       512\ndatabase    1\n"
    print_table(context, ("GUEST", "MiB"), [])
    assert capsys.readouterr().out == ""


def test_fields_stand_below_each_other() -> None:
    assert (
        fields([("kind", "swap"), ("in fstab", True), ("id", None), ("size", 3)])
        == "kind      swap\nin fstab  yes\nid        -\nsize      3"
    )


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    name, shown = "7-\x1b]0;you\x07\n\x9b2J\udc9b", "7-?]0;you???2J?"
    assert table(("DIRECTORY",), [(name,)]) == f"DIRECTORY\n{shown}"
    assert fields([("directory", name)]) == f"directory  {shown}"


def test_a_plan_is_reasons_and_commands() -> None:
    actions = (
        Run(why="Make the swap area", argv=("mkswap", "/a b")),
        SetValue(why="Set it now", path="/proc/sys/vm/swappiness", value="100", before="60"),
    )
    assert (
        plan(actions)
        == "# Make the swap area\nmkswap '/a b'\n\n# Set it now\necho 100 >/proc/sys/vm/swappiness"
    )
    assert plan(()) == "There is nothing to do."
