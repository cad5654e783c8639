"""A user's own folders as data sets: what they are called, and what is said of them."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Folder = str | Mapping[str, Any]
"""A path, or `{root: <path>}` with more of what `CSVData` takes; in a list also `name`."""


Folders = Sequence[Folder] | Mapping[str, Folder]


USE = (
    "give a list, as in 'stream.folders=[photos/a,photos/b]', or names, as in "
    "'stream.folders={phones: photos/a, drones: photos/b}'"
)


def named_folders(folders: Folders) -> dict[str, dict[str, Any]]:
    """What `CSVData` takes of each folder, by the name of the data set.

    A folder without a name is called as it is on the disk, letters of any script; two of the same
    name take that of the folder above with them: `p/day`, `q/day` are `day_p`, `day_q`. Names that
    differ in signs that records do not take (`a b` and `a+b`, two emoji) end in a hash of theirs.

    Raises:
        ValueError: no folder, one without a root, or one that is given twice.
    """
    if isinstance(folders, Mapping) and "root" in folders:  # one folder, by itself
        folders = [folders]
    if folders == "???":  # OmegaConf's sign for what has to be given
        raise ValueError(f"stream.folders is missing: {USE}")
    if not folders or isinstance(folders, str):
        raise ValueError(f"stream.folders is {folders!r}: {USE}")
    if isinstance(folders, Mapping):
        entries = [{"name": name, **entry(folder)} for name, folder in folders.items()]
    else:
        entries = [entry(folder) for folder in folders]
    roots = [str(Path(given["root"]).expanduser().resolve()) for given in entries]
    if twice := next((root for root, count in Counter(roots).items() if count > 1), None):
        raise ValueError(f"stream.folders names {twice} twice: take one of them out")
    names = told_apart(
        [
            str(given.pop("name", None) or name)
            for given, name in zip(entries, disk_names(roots), strict=True)
        ]
    )
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ValueError(f"stream.folders: two folders are called {twice!r}; {USE}")
    return dict(zip(names, entries, strict=True))


def entry(folder: Folder) -> dict[str, Any]:
    """A folder as a mapping with its root."""
    given = dict(folder) if isinstance(folder, Mapping) else {"root": folder}
    if not given.get("root") or not isinstance(given["root"], str | Path):
        raise ValueError(f"stream.folders holds {folder!r}, which names no folder: {USE}")
    return given


def disk_names(roots: Sequence[str]) -> list[str]:
    """The shortest ends of paths that tell them apart, the last part first."""
    parts = [[composed(part) for part in reversed(Path(root).parts)] for root in roots]
    in_records = shortest([[readable(part) for part in part_names] for part_names in parts])
    on_disk = shortest(parts)
    counts = Counter(in_records)
    # where records cannot tell them apart at any length, the disk can
    return [
        name if counts[name] == 1 else other
        for name, other in zip(in_records, on_disk, strict=True)
    ]


def shortest(parts: Sequence[Sequence[str]]) -> list[str]:
    """Of lists of names, as many of each, joined, as tell it apart from the others."""
    depth = [1] * len(parts)
    while True:
        names = ["_".join(part[:deep]) for part, deep in zip(parts, depth, strict=True)]
        clash = {name for name, count in Counter(names).items() if count > 1}
        longer = [
            deep + (name in clash and deep < len(part))
            for name, deep, part in zip(names, depth, parts, strict=True)
        ]
        if longer == depth:
            return names
        depth = longer


def told_apart(names: Sequence[str]) -> list[str]:
    """Names as records take them; different ones that would become the same end in a hash."""
    counts = Counter(readable(name) for name in dict.fromkeys(names))
    return [
        readable(name)
        if counts[readable(name)] == 1
        else f"{readable(name)}_{hashlib.sha256(composed(name).encode()).hexdigest()[:4]}"
        for name in names
    ]


def composed(name: Any) -> str:
    """A name whose accents are composed (NFC)."""
    return unicodedata.normalize("NFC", str(name))


def readable(name: Any) -> str:
    """A name that records take: NFC, `_` for what is neither letter, mark nor digit."""
    signs = (
        sign if sign == "-" or unicodedata.category(sign)[0] in "LMN" else "_"
        for sign in composed(name)
    )
    return re.sub("_+", "_", "".join(signs)) or "folder"
