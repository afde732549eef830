"""Whether the hook sees the host as it is.

The hook runs where libvirt runs, and goes by what it sees there. In a container that may be another
store, or none, and no configuration.
"""

from collections.abc import Iterator

from ramshelf.core.migration.answer import HostAnswer


def differences(hook: HostAnswer, here: HostAnswer) -> tuple[str, ...]:
    """Return half a sentence for each thing that the hook sees otherwise than is found here."""
    return tuple(_differences(hook, here))


def other_view(view: tuple[str, ...]) -> str:
    """Return the sentence that says what the hook sees otherwise."""
    return f"libvirt's hook does not see this host as it is: {'; '.join(view)}."


def _differences(hook: HostAnswer, here: HostAnswer) -> Iterator[str]:
    if _store(hook) != _store(here):
        yield f"it sees {_store(hook)}, and here is {_store(here)}"
    if (hook.configured, hook.off) != (here.configured, here.off):
        yield f"file_backed_memory is {_limit(hook)} for it, and {_limit(here)} here"
    if hook.reserved_mib != here.reserved_mib:
        yield (
            f"host_reserved_memory_mb is {hook.reserved_mib} for it, and {here.reserved_mib} here"
        )


def _store(answer: HostAnswer) -> str:
    if answer.kind is None:
        return f"no store ({answer.problem})"
    return f"a {answer.kind.value} store ({answer.fstype}, {answer.device})"


def _limit(answer: HostAnswer) -> str:
    if answer.off:
        return "0"
    return "set" if answer.configured else "not set"
