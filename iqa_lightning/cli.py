"""The console script: `iqa-lightning <command> ...`, each a module of its own
(`python -m iqa_lightning.<command> ...`).
"""

import ast
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

COMMANDS = (
    *("train", "evaluate", "pretrain", "check", "reproduce"),
    *("score", "export", "watch", "tune", "new"),
)
"""In the order of `iqa-lightning --help`; one without a module is not shown."""


HERE = Path(__file__).resolve().parent


def main(words: Sequence[str] | None = None) -> None:
    """Become the process of a command.

    The command runs as `python -m iqa_lightning.<command>`, so that ranks, which are started by the
    same words, find it.

    Raises:
        SystemExit: there is no such command.
    """
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return
    there = commands()
    if words[0] not in there:
        near = get_close_matches(words[0], there, 1)
        guess = f"did you mean {near[0]}? " if near else ""
        print(
            f"error: there is no command {words[0]!r}; {guess}{', '.join(there)}", file=sys.stderr
        )
        raise SystemExit(2)
    command = [sys.executable, "-m", f"iqa_lightning.{words[0]}", *words[1:]]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  # the user's own words, no shell


def commands() -> list[str]:
    """The commands that this version has."""
    return [name for name in COMMANDS if (HERE / f"{name}.py").is_file() or (HERE / name).is_dir()]


def overview() -> str:
    """What each command does: the first line of its module."""
    lines = ["iqa-lightning <command> ... (--help after a command says more)", ""]
    for name in commands():
        file = HERE / f"{name}.py"
        text = ast.get_docstring(
            ast.parse((file if file.is_file() else HERE / name / "__init__.py").read_text())
        )
        first = " ".join((text or "").split("\n\n")[0].split()).split(": `")[0]
        lines.append(f"  {name:10}  {first}")
    return "\n".join(lines)
