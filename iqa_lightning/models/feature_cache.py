"""Features of a network that nothing trains, computed once an image and kept: on disk for all runs,
or in memory for one.
"""

import hashlib
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from iqa_lightning.images.cache import default_folder
from iqa_lightning.models.backbones import Encoder, Images

KINDS = ("disk", "ram", "none")


REMEDY = "delete the file, or all caches with `python -m iqa_lightning.check cache=remove`"


class FeatureCache:
    """Looks features up by the pixels of the image, so that it does not matter where an image comes
    from.

    What is missing is computed one image at a time: a feature then depends on the pixels, the
    network, the device and the number of threads alone, never on the batch that an image came in,
    and a run that finds it gives the same bytes as one that computes it. On disk it is one SQLite
    file a network, `features-<fingerprint>.sqlite`; a folder that cannot be written into costs a
    warning and the work.

    Args:
        network: whose weights and buffers name the file; they must not change.
        what: a word for the kind of features.
        kind: `disk`, `ram`, or `none`: nothing is kept, the numbers are the same.
        folder: of the file; default where decoded images are kept.

    Raises:
        ValueError: an unknown `kind`.
    """

    def __init__(
        self, network: Encoder, what: str, kind: str = "disk", folder: str | Path | None = None
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"method.cache={kind!r}: choose one of {KINDS}")
        self.network, self.what, self.kind = network, what, kind
        self.folder = Path(folder).expanduser() if folder is not None else default_folder()
        self.kept: dict[bytes, bytes] = {}
        self.names: dict[str, str] = {}
        self.seen: set[bytes] = set()

    def __call__(
        self, image: Images, compute: Callable[[Images], Float[Tensor, "batch width"]]
    ) -> Float[Tensor, "batch width"]:
        """Features of a batch; `compute` is asked for those that are not there.

        An image counts as forwarded once a run, whether its features were there or not: what a
        method costs does not depend on who ran before.

        Raises:
            ValueError: the file is damaged.
        """
        keys = [content_key(one) for one in image.cpu()]
        with torch.no_grad(), self.opened(image.device) as table:
            found = [self.read(table, key) for key in keys]
            new = {}
            for i, key in enumerate(keys):
                if found[i] is None and key not in new:
                    new[key] = compute(image[i : i + 1])[0].float().cpu().numpy().tobytes()
            self.network.images_forwarded += len(set(keys) - self.seen - new.keys())
            self.seen |= set(keys) if self.kind != "none" else set()
            self.write(table, new)
        rows = [
            new.get(key, b"") if row is None else row for key, row in zip(keys, found, strict=True)
        ]
        if len({len(row) for row in rows}) > 1:
            raise ValueError(f"{self.file(image.device)} is damaged: {REMEDY}")
        features = np.stack([np.frombuffer(row, dtype=np.float32) for row in rows])
        return torch.from_numpy(features).to(image.device)

    def file(self, device: torch.device) -> Path:
        """The file of this network on this kind of device."""
        if device.type not in self.names:
            state = hashlib.sha256()
            words = (self.what, torch.__version__, device.type, torch.get_num_threads())
            state.update(repr((*words, type(self.network).__name__)).encode())
            buffers = dict(self.network.named_buffers()) | self.network.state_dict()
            for name, tensor in buffers.items():
                state.update(name.encode())
                state.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
            self.names[device.type] = state.hexdigest()[:16]
        return self.folder / f"features-{self.names[device.type]}.sqlite"

    @contextmanager
    def opened(self, device: torch.device) -> Iterator[sqlite3.Connection | None]:
        """The table on disk, None where features are kept in memory."""
        if self.kind != "disk":
            yield None
            return
        file = self.file(device)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            table = sqlite3.connect(file, timeout=60)
            table.execute("create table if not exists features (key blob primary key, row blob)")
        except (sqlite3.OperationalError, OSError) as error:
            warnings.warn(f"features are not kept on disk: {file}: {error}", stacklevel=2)
            self.kind = "ram"
            yield None
            return
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{file} is damaged ({error}): {REMEDY}") from error
        try:
            with table:
                yield table
        finally:
            table.close()

    def read(self, table: sqlite3.Connection | None, key: bytes) -> bytes | None:
        """The row of an image, None where there is none."""
        if table is None:
            return self.kept.get(key)
        found = table.execute("select row from features where key = ?", (key,)).fetchone()
        return None if found is None else bytes(found[0])

    def write(self, table: sqlite3.Connection | None, rows: dict[bytes, bytes]) -> None:
        """Keep rows; who came first wins, all compute the same."""
        if table is None:
            self.kept |= rows if self.kind == "ram" else {}
        else:
            table.executemany("insert or ignore into features values (?, ?)", rows.items())


def content_key(image: Tensor) -> bytes:
    """A hash of the size and the pixels of an image."""
    pixels = image.contiguous().numpy()
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()


def remove_features(folder: Path) -> list[Path]:
    """Remove the features kept in a folder, with what SQLite left beside them; the files."""
    files = sorted(folder.glob("features-*.sqlite"))
    for file in [*files, *folder.glob("features-*.sqlite-*")]:
        file.unlink(missing_ok=True)
    return files
