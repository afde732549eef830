"""What a page of the documentation has for typing, and what it says of the answers."""

import re
import textwrap

_BLOCK = r"(?<=\n\n)(?: {4}.*\n)+"
_SHOWN = r"(?<=\n\n)```text\n(?:.*\n)*?```\n"


def commands(markdown: str) -> list[str]:
    """Return the commands, and other lines, of a page's indented blocks of code, in order.

    A command that goes on in the next line is one, and so is one with a here-document; of a block
    that is not for typing but for a file, all is one.
    """
    return [command for block in re.findall(_BLOCK, markdown) for command in _commands(block)]


def steps(markdown: str) -> list[tuple[str, list[str]]]:
    """Return a page's commands, each with the lines that the page shows of its answer.

    Those are in a block of text that is the next after the command.
    """
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(f"{_BLOCK}|{_SHOWN}", markdown):
        if block.startswith("```"):
            found[-1][1].extend(block.splitlines()[1:-1])
        else:
            found.extend((command, []) for command in _commands(block))
    return found


def unseen(shown: list[str], said: str) -> list[str]:
    """Return the lines shown of an answer that are not in it, in this order among others.

    Numbers, units of sizes and the widths of columns may be others; "[...]" stands for what was
    left out.
    """
    left = [" ".join(line.split()) for line in said.splitlines()]
    missing = []
    for line in shown:
        pattern = re.escape(" ".join(line.split())).replace(re.escape("[...]"), ".*")
        pattern = re.sub(r"\d+(?:\\\.\d+)?", r"\\d+(?:\\.\\d+)?", pattern)
        pattern = re.sub(r"(?<=\\ )[KMGT]?i?B\b", "[KMGT]?i?B", pattern)
        at = next((n for n, each in enumerate(left) if re.fullmatch(pattern, each)), None)
        if at is None:
            missing.append(line)
        else:
            del left[: at + 1]
    return missing


def _commands(block: str) -> list[str]:
    lines = textwrap.dedent(block).splitlines()
    if lines[0].startswith(("[", "<")):
        return ["\n".join(lines)]
    found: list[str] = []
    end = ""
    for line in lines:
        if found and (end or line.startswith(" ") or found[-1].endswith(("\\", "|"))):
            found[-1] += f"\n{line}"
        else:
            found.append(re.sub(r" {2,}#.*", "", line))
        heredoc = re.search(r"<<'?(\w+)", line)
        end = heredoc[1] if heredoc else "" if line == end else end
    return found
