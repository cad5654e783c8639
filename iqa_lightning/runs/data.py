"""The data that a run began with: files and ratings, compared when it goes on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_lightning.files import write_bytes

if TYPE_CHECKING:
    from iqa_lightning.datasets.base import IQADataModule


DATA = "data.json"


THREADS = 4


def keep_data(folder: Path, data: Iterable["IQADataModule"], parent: Path | None = None) -> None:
    """Note the data of a new run in its folder; refuse to go on with other data, or with others
    than a `parent` learnt from.

    Of each data set: the hash of its split, the checksum of its table (names, scores, contents),
    and size, time and SHA-256 of each image. A file whose size and time are as noted is not read.

    Raises:
        ValueError: naming the first file that is not what it was.
    """
    from iqa_lightning.records import RunFolder  # noqa: PLC0415  # pandas

    begun = RunFolder(folder).begun
    learnt = folder if begun or parent is None else parent
    old = read_data(learnt) if begun or parent is not None else {}
    now = {module.name: describe(module, old.get(module.name, {})) for module in data}
    for module in {module.name: module for module in data}.values():
        if module.name in old:
            compare(learnt, module, old[module.name], now[module.name])
    text = json.dumps(now, indent=1, ensure_ascii=False, sort_keys=True)
    if now != old:
        write_bytes(folder / DATA, f"{text}\n".encode())


def read_data(folder: Path) -> dict[str, Any]:
    """What was noted; empty where nothing was.

    Raises:
        ValueError: It is not JSON.
    """
    path = folder / DATA
    try:
        return dict(json.loads(path.read_bytes())) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): delete it, and the run goes on with the data as "
            "they are"
        ) from error


def describe(module: "IQADataModule", old: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies the data of a data set."""
    from iqa_lightning.audit.manifest import table_checksum  # noqa: PLC0415  # torch

    images = [str(image) for image in module.samples.table["image"]]
    known = old.get("images", {})

    def identify(row: int) -> list[Any] | None:
        path = module.image_path(row)
        if not path.is_file():  # a generated image
            return None
        stat = path.stat()
        noted = known.get(images[row])
        if noted and noted[:2] == [stat.st_size, stat.st_mtime_ns]:
            return list(noted)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [stat.st_size, stat.st_mtime_ns, digest]

    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(images, pool.map(identify, range(len(images))), strict=True))
    return {
        "split_hash": module.split_hash,
        "table": table_checksum(module.samples),
        "images": {image: noted for image, noted in found.items() if noted},
    }


def compare(
    folder: Path, module: "IQADataModule", old: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Refuse data that are not what they were.

    Raises:
        ValueError: naming the first file.
    """
    one, other = old.get("images", {}), now["images"]
    changed = [
        image for image in sorted(one.keys() & other.keys()) if one[image][2] != other[image][2]
    ]
    what = [str(module.root / image) for image in changed]
    if old.get("table") != now["table"]:
        what.insert(0, str(module.table_path))
    elif old.get("split_hash") != now["split_hash"]:
        what.insert(0, f"the split of {module.name}")
    if what:
        raise ValueError(
            f"data set {module.name!r}: {what[0]} is not what it was when the run in {folder} began"
            f"{f' ({len(what)} files are not)' if len(what) > 1 else ''}: bring back what was "
            "there, or start again with what is there now in another folder (or delete that one)"
        )
