"""Files that are whole: written under a temporary name and renamed, so that a crash leaves the old
file or the new one and never half of one.

`checksums.json` of a folder holds the SHA-256 of the files that are compared when read.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

CHECKSUMS = "checksums.json"


def is_name(text: str, more: str = "") -> bool:
    """Whether a text can name a data set, and so stand in the name of a file: letters and digits of
    any script, `_`, `-` and `more`.
    """
    fit = all(sign in "_-" + more or unicodedata.category(sign)[0] in "LMN" for sign in text)
    return bool(text) and fit and unicodedata.is_normalized("NFC", text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that at every instant it is either absent, the old one or the new one.

    Raises:
        OSError: naming the file.
    """
    write_atomic(path, lambda file: file.write(content))


def write_sealed(root: Path, path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file below the run folder `root` whose checksum is compared when it is read.

    The checksum is noted beside that of the version before, and before the file takes its place: a
    crash in between leaves a file that is one of the two.
    """
    name, noted = path.relative_to(root).as_posix(), read_checksums(root)

    def note(part: Path) -> None:
        digest = sha256(part)
        before = [known for known in noted.get(name, [])[-1:] if known != digest]
        content = noted | {name: [*before, digest]}
        write_bytes(root / CHECKSUMS, f"{json.dumps(content, indent=1)}\n".encode())

    write_atomic(path, write, note)


def write_atomic(
    path: Path, write: Callable[[BinaryIO], Any], before: Callable[[Path], None] | None = None
) -> None:
    """Let `write` fill a file beside `path`, flush it, rename it to `path`, flush the folder.

    `before` is called with the whole file before it takes its place.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if before:
            before(part)
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, outlives a power cut
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checksums(root: Path) -> dict[str, list[str]]:
    """SHA-256 of files by name; of each the last version and the one before.

    Raises:
        ValueError: The file is not JSON.
    """
    path = root / CHECKSUMS
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): delete it, and files are read without comparison"
        ) from error


def verify(root: Path, path: Path) -> None:
    """Compare a file with its checksum, where one is noted.

    Raises:
        ValueError: It is not what was written.
    """
    if not (known := read_checksums(root).get(path.relative_to(root).as_posix())):
        return
    digest = sha256(path)
    if digest not in known:
        raise ValueError(
            f"{path} is not what was written ({path.stat().st_size} bytes, SHA-256 "
            f"{digest[:12]}..., not {known[-1][:12]}...): bring back a copy, or delete it, "
            f"summary.json and last.ckpt in {root}, and the same training command makes it again"
        )


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays and metadata of a safetensors file.

    Raises:
        ValueError: It is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  # few need it

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from error
