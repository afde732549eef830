"""What a call of the hook and whoever reads its answer agree on. No imports: most calls end right after."""

PASSED, VETOED = 0, 10
"""Exit statuses for the script; 1 and 2 are Python's own, for programs that do not even begin."""

PROBE = "ramshelf-probe-"
"""Begin of the name of a guest that ``hook install`` tries to start, to see whether the hook is called."""
