"""Who holds the agent's lock, by what the kernel says of all locks."""

from ramshelf.system.agentlock import lock_holder

LOCKS = """\
1: POSIX  ADVISORY  WRITE 700 00:1a:1234 0 EOF
2: FLOCK  ADVISORY  WRITE 812 00:1a:1234 0 EOF
2: -> FLOCK  ADVISORY  WRITE 900 00:1a:1234 0 EOF
3: OFDLCK ADVISORY  READ  -1 08:01:77 128 128
4: FLOCK  ADVISORY  WRITE 913 103:05:1234 0 EOF
"""


def test_the_holder_is_told_from_who_waits_and_from_other_files() -> None:
    assert lock_holder(LOCKS, 0, 0x1A, 1234) == 812
    assert lock_holder(LOCKS, 0x103, 5, 1234) == 913
    assert lock_holder(LOCKS, 0, 0x1A, 1235) is None
    assert lock_holder(LOCKS, 8, 1, 77) is None
    assert lock_holder("", 0, 0x1A, 1234) is None
