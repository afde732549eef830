from ramshelf.cli.output import table


def test_numbers_stand_to_the_right_and_nothing_is_a_dash() -> None:
    assert table(("GUEST", "MiB", "NOTE"), [("web", 512, None), ("database", 16384, "x")]) == (
        "GUEST       MiB  NOTE\nweb         512  -\ndatabase  16384  x"
    )


def test_without_rows_the_header_alone() -> None:
    assert table(("GUEST", "MiB"), []) == "GUEST  MiB"
