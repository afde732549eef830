"""Every way in which ramshelf says no.

An error carries one sentence, a stable code that scripts may rely on, a hint that says what to do,
and facts for ``--json``. Any module may raise one; only the command line prints it and chooses the
exit status.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


ENLARGE = "make the store larger ('ramshelf store resize --size')"
"""What the hints say where a store is too small."""


class RamshelfError(Exception):
    """The base of all errors: exit status 1, refused or failed, nothing half done."""

    exit_status = 1

    def __init__(
        self,
        code: str,
        sentence: str,
        *,
        hint: str = "",
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.hint = hint
        self.facts: Mapping[str, object] = {} if facts is None else facts


class ConfigError(RamshelfError):
    """A configuration file cannot be used; facts name file, section and key."""

    exit_status = 255


class UsageError(RamshelfError):
    """The request itself makes no sense."""

    exit_status = 255


class InterruptedByUserError(RamshelfError):
    """Ctrl-C: the exit status is that of a shell's command that SIGINT has ended."""

    exit_status = 130

    def __init__(
        self,
        sentence: str = "Interrupted.",
        *,
        code: str = "cli.interrupted",
        hint: str = "",
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(code, sentence, hint=hint, facts=facts)


class InputError(RamshelfError):
    """Some input, such as a domain's XML, cannot be used."""


class RefusedError(RamshelfError):
    """ramshelf will not do this, because a rule of the store would break."""


class HostError(RamshelfError):
    """This host lacks what is needed."""


class ToolError(RamshelfError):
    """An external command failed; facts hold argv, exit status and stderr."""


class ServiceError(RamshelfError):
    """libvirt or Placement refused or cannot be reached."""
