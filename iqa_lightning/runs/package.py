"""Which code ran: the version of the package and the commit that it was built from."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


BUILT = "built_from.txt"
"""In a wheel: the commit that it was built from, written by `hatch_build.py`."""


def package() -> dict[str, str | None]:
    """Version and commit of the running code."""
    try:
        number = version("iqa-lightning")
    except PackageNotFoundError:  # copied, not installed
        number = None
    return {"version": number, "commit": git_commit()}


def git_commit() -> str | None:
    """The commit of the running code, with `+` where files were changed; null where it is not
    known.

    Only a repository whose root holds the package counts: one around an installed wheel is of
    something else.
    """
    if (HERE / BUILT).is_file():
        return (HERE / BUILT).read_text().strip() or None
    try:
        root = git("rev-parse", "--show-toplevel")
        if Path(root).resolve() != HERE.parent.resolve() or not git("ls-files", HERE.name):
            return None
        return git("describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def git(*words: str) -> str:
    """What git says in the folder that holds the package."""
    ask = ["git", "-C", str(HERE.parent), *words]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603  # fixed words
