"""Begin a method or a data set: `python -m iqa_lightning.new method|dataset <name>`.

Writes its three files (code, yaml, test) into a checkout, from templates that pass the contract at
once; nothing else needs an edit. What is there already is never overwritten.
"""

import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

TEMPLATES = Path(__file__).parent / "templates"
FILES = {
    "method": {
        "method.py.txt": "iqa_lightning/methods/{name}.py",
        "method.yaml.txt": "conf/method/{name}.yaml",
        "test_method.py.txt": "tests/methods/test_{name}.py",
    },
    "dataset": {
        "dataset.py.txt": "iqa_lightning/datasets/{name}.py",
        "dataset.yaml.txt": "conf/data/{name}.yaml",
        "test_dataset.py.txt": "tests/datasets/test_{name}.py",
    },
}
USAGE = "usage: python -m iqa_lightning.new method|dataset <name>   (in the root of a checkout)"


def title_of(name: str) -> str:
    """The name of the class: `low_rank` becomes `LowRank`."""
    return "".join(word.capitalize() for word in name.split("_"))


def new(kind: str, name: str, root: Path) -> list[Path]:
    """Write the files of a new method or data set.

    Args:
        kind: `method` or `dataset`.
        name: as it will be called in configs, in snake case.
        root: of the checkout.

    Returns:
        The files, all new.

    Raises:
        ValueError: another kind, a name that no module can have, a root that is no checkout, or one
            of the files is there already; nothing is written then.
    """
    if kind not in FILES:
        raise ValueError(f"{kind!r} is neither `method` nor `dataset`; {USAGE}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot name a module: use small letters, digits and '_'")
    if not (root / "pyproject.toml").is_file() or not (root / "conf").is_dir():
        raise ValueError(f"{root} is no checkout of iqa_lightning: call this in its root folder")
    files = {root / place.format(name=name): text for text, place in FILES[kind].items()}
    if there := [str(file) for file in files if file.exists()]:
        raise ValueError(f"{there[0]} is there already: choose another name, or edit that file")
    for file, text in files.items():
        filled = Template((TEMPLATES / text).read_text()).substitute(
            name=name, title=title_of(name)
        )
        file.write_text(filled)
    return list(files)


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line.

    Raises:
        SystemExit: with status 2, and one line, where it makes no sense.
    """
    given = list(sys.argv[1:] if words is None else words)
    if len(given) != 2 or given[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if given[:1] in (["-h"], ["--help"]) else sys.stderr)
        raise SystemExit(0 if given[:1] in (["-h"], ["--help"]) else 2)
    kind, name = given
    try:
        files = new(kind, name, Path.cwd())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    for file in files:
        print(f"written: {file.relative_to(Path.cwd())}")
    tests = "tests/test_contract.py" if kind == "method" else "tests/test_dataset_contract.py"
    print(f"try it:  python -m pytest {files[-1].relative_to(Path.cwd())} {tests} -k {name}")
    example = f"method={name}" if kind == "method" else f"'stream.order=[{name}]'"
    print(f"use it:  docs/how-to/add-a-{kind}.md ({example})")


if __name__ == "__main__":
    main()
