"""docs/operations.md is followed on a bare machine's tree, and everything runs in the end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dockerfiles import ROOT
from tests.full import FULL
from tests.newcomer import BARE, missing
from tests.typed import Block, blocks, in_shell


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="a bare machine's tree needs Linux and root: docs/operations.md is not followed",
)
@pytest.mark.skipif(
    bool(missing()), reason=f"docs/operations.md is not followed: needs {', '.join(missing())}"
)
@pytest.mark.timeout(420)
def test_given_a_bare_machine_a_newcomer_has_everything_running() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.newcomer", "--installed", *([] if FULL else ["--brief"])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-6_000:]
    assert "was followed in" in ran.stdout


def test_given_a_document_the_blocks_of_one_section_are_read_with_their_headings() -> None:
    text = (
        "# A\n\n## A bare machine\n\n```bash\none\n```\n\n### Start\n\n```bash\ntwo\nthree\n```\n\n"
        "```console\n$ shown\n```\n\n## After\n\n```bash\nfour\n```\n"
    )
    assert blocks(text, BARE) == [Block("A bare machine", "one\n"), Block("Start", "two\nthree\n")]


def test_given_two_blocks_the_second_finds_the_shell_as_the_first_left_it(tmp_path: Path) -> None:
    typed = (
        f"cd {tmp_path}\numask 027\nexport A='b c'\nsaid() {{ echo said; }}\n",
        'umask; pwd; echo "$A"; said\n',
    )
    for commands in typed:
        command = ["bash", "-euc", in_shell(commands, str(tmp_path / "left"))]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["0027", str(tmp_path), "b c", "said"]
