"""The commands of the README are of kinds that are tried; `tests/test_docs.py` composes them."""

import re
import subprocess

import pytest

from tests.walks import ROOT

BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
LINES = [
    line.partition("  #")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    if line.strip()
]
MADE_HERE = ("python -m iqa_lightning.", "iqa-lightning ", "make ", "wandb ")


def test_every_line_is_a_kind_that_is_tried_here() -> None:
    assert LINES
    assert all(line.startswith(MADE_HERE) for line in LINES)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_a_make_target_exists(line: str) -> None:
    done = subprocess.run(
        ["make", "-n", *line.split()[1:]], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


def test_make_help_lists_every_target_that_the_interface_names() -> None:
    done = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT, check=True)
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    named = "install demo test test-fast check check-data clean-cache bench reproduce-table help"
    assert set(named.split()) <= listed
