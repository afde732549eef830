"""What the pages that tests type have for typing, and whether an answer is the one shown."""

from support.pages import commands, steps, unseen

PAGE = """\
# A page

Look:

    ramshelf guest list    # all of them
    cat > /tmp/init <<'INIT'
    #!/bin/sh
    echo up
    INIT

```text
NAME   SIZE
first  1024
```

    ramshelf capacity
"""


def test_a_command_and_a_here_document_are_one_step_each_with_what_is_shown_of_the_answer() -> None:
    file = "cat > /tmp/init <<'INIT'\n#!/bin/sh\necho up\nINIT"
    assert commands(PAGE) == ["ramshelf guest list", file, "ramshelf capacity"]
    assert steps(PAGE)[1:] == [(file, ["NAME   SIZE", "first  1024"]), ("ramshelf capacity", [])]


def test_numbers_and_widths_of_an_answer_may_be_others_and_its_words_may_not() -> None:
    shown = ["NAME   SIZE", "first  1024", "error: [...] refused"]
    assert unseen(shown, "NAME SIZE\nother 1\nfirst   9\nerror: (12) refused\n") == []
    assert unseen(shown, "NAME SIZES\nfirst 9\nerror: refused\n") == [shown[0], shown[2]]


def test_a_size_may_have_another_unit() -> None:
    assert unseen(["762.8 MiB used, 0 B free"], "1 GiB used, 3.5 KiB free") == []
    assert unseen(["762.8 MiB used"], "762.8 guests used") == ["762.8 MiB used"]


def test_an_answer_in_another_order_is_another_answer() -> None:
    assert unseen(["first", "second"], "second\nfirst\n") == ["second"]
