"""What a document has typed: its blocks marked bash, and the one shell that they are typed into."""

import re
from dataclasses import dataclass

LEFT = "/run/shell"
SHELL = """[ ! -e {left} ] || . {left}
{commands}
{{ umask -p; printf 'cd %q\\n' "$PWD"; declare -f; export -p; }} > {left}
"""
"""A block, in the shell that the one before it left."""


@dataclass(frozen=True)
class Block:
    """Commands, and the heading that they stand under."""

    heading: str
    commands: str


def blocks(text: str, section: str) -> list[Block]:
    """The blocks of a section that are to be run: those marked bash."""
    _, found, rest = text.partition(f"\n## {section}\n")
    assert found, section
    rest = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    read, heading = [], section
    for line in re.finditer(
        r"^### (?P<heading>.+)$|^```bash\n(?P<commands>(?:.*\n)*?)```$", rest, re.MULTILINE
    ):
        heading = line["heading"] or heading
        if line["commands"]:
            read.append(Block(heading, line["commands"]))
    return read


def in_shell(commands: str, left: str = LEFT) -> str:
    """Commands as they are typed after those before them; `left` is what these left."""
    return SHELL.format(commands=commands, left=left)
