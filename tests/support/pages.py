"""What a page of the documentation has for typing."""

import re
import textwrap


def commands(markdown: str) -> list[str]:
    """Return the commands, and other lines, of a page's indented blocks of code, in order.

    A command that goes on in the next line is one, and so is one with a here-document; of a block
    that is not for typing but for a file, all is one.
    """
    found = []
    for block in re.findall(r"(?<=\n\n)(?: {4}.*\n)+", markdown):
        lines = textwrap.dedent(block).splitlines()
        if lines[0].startswith(("[", "<")):
            found.append("\n".join(lines))
            continue
        end = ""
        for line in lines:
            if found and (end or line.startswith(" ") or found[-1].endswith(("\\", "|"))):
                found[-1] += f"\n{line}"
            else:
                found.append(re.sub(r" {2,}#.*", "", line))
            heredoc = re.search(r"<<(\w+)", line)
            end = heredoc[1] if heredoc else "" if line == end else end
    return found
