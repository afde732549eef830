"""What a code means that the doctor, a command or a log has shown."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ramshelf.core.catalog import GROUPS, RULES, Rule
from ramshelf.core.errorcodes import ERROR_CODES, SECTIONS, ErrorCode

_FIRST_SENTENCE = re.compile(r".*?[.:](?= [A-Z]|$)")


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a code means where it is said; a finding and an error may have the same code.

    ``severities`` are the words for how bad it is; of two the first holds, unless ``meaning`` says
    that it is the second. ``hint`` says what to do, '' where there is nothing to do or where only
    what was printed with the code can say it.
    """

    code: str
    said_by: str
    about: str
    severities: tuple[str, ...]
    meaning: str
    hint: str

    @property
    def first_sentence(self) -> str:
        """The meaning in one sentence, for lists."""
        found = _FIRST_SENTENCE.match(self.meaning)
        return found[0] if found else self.meaning


def explain(code: str) -> tuple[Meaning, ...]:
    """Return what a code means; nothing where there is no such code."""
    found = []
    if code in RULES:
        found.append(_finding(RULES[code]))
    if code in ERROR_CODES:
        found.append(error(ERROR_CODES[code]))
    return tuple(found)


def codes() -> tuple[str, ...]:
    """Return every code, grouped by the part before its dot."""
    groups = list(dict.fromkeys(_group(code) for code in (*RULES, *ERROR_CODES)))
    every = dict.fromkeys((*RULES, *ERROR_CODES))
    return tuple(sorted(every, key=lambda code: groups.index(_group(code))))


def meant(word: str) -> tuple[str, ...]:
    """Return the codes that a word may stand for which is none, the most likely first.

    That is a code without its group or with another one's, or a mistyped one.
    """
    every = codes()
    name = word.rpartition(".")[2]
    same = [code for code in every if code.partition(".")[2] == name]
    return tuple(dict.fromkeys((*same, *difflib.get_close_matches(word, every, n=3))))[:3]


def by_group(found: Iterable[str]) -> Iterator[tuple[str, tuple[Meaning, ...]]]:
    """Yield each group of codes, with the first meaning of each."""
    groups: dict[str, list[Meaning]] = {}
    for code in found:
        groups.setdefault(_group(code), []).append(explain(code)[0])
    for group, members in groups.items():
        yield group, tuple(members)


def error(each: ErrorCode) -> Meaning:
    """Return what the code of an error or a note means."""
    about, said_by = SECTIONS[each.section]
    rule = RULES.get(each.code)
    return Meaning(
        code=each.code,
        said_by=said_by,
        about=about,
        severities=("note" if each.section == "notes" else "error",),
        meaning=each.meaning,
        hint=each.hint or (rule.hint if rule else ""),
    )


def _finding(rule: Rule) -> Meaning:
    return Meaning(
        code=rule.code,
        said_by="doctor, agent",
        about=GROUPS[_group(rule.code)],
        severities=tuple(
            severity.value for severity in (rule.severity, rule.milder) if severity is not None
        ),
        meaning=rule.meaning,
        hint=rule.hint,
    )


def _group(code: str) -> str:
    return code.partition(".")[0]
