"""Every command of the README is one that works."""

import re
import shlex
import subprocess

import pytest

from tests.walks import ROOT, call

BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
LINES = [
    line.partition("  #")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    if line.strip()
]
MODULE = "python -m iqa_lightning."
MADE_HERE = ("python -m iqa_lightning.", "make ", "wandb ")


def test_every_line_is_a_kind_that_is_tried_here() -> None:
    assert LINES
    assert all(line.startswith(MADE_HERE) for line in LINES)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in LINES if line.startswith(MODULE)])
def test_a_command_of_the_package_composes(line: str) -> None:
    """With `--cfg job`, which refuses unknown keys and choices but runs nothing; a sweep as its
    first run.
    """
    module, *words = shlex.split(line.removeprefix(MODULE))
    words = [re.sub(r"=(\[.*?\]|\d+),.*", r"=\1", word) for word in words if word != "-m"]
    assert call(*words, "--cfg", "job", module=module).stdout


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
