"""What is on disk of a data set, compared with what its table says: nothing is changed and nothing
is fetched.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr

from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.datasets.splits import Split
from iqa_lightning.images.opening import DECISIONS, other_name

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


SHOWN = 20  # files named in one finding

TURNS = {
    Image.Transpose.FLIP_LEFT_RIGHT: "mirrored",
    Image.Transpose.ROTATE_180: "turned by 180 degrees",
    Image.Transpose.FLIP_TOP_BOTTOM: "upside down and mirrored",
    Image.Transpose.TRANSPOSE: "turned and mirrored",
    Image.Transpose.ROTATE_270: "turned by 90 degrees",
    Image.Transpose.TRANSVERSE: "turned and mirrored",
    Image.Transpose.ROTATE_90: "turned by 90 degrees",
}
"""Ways in which two images may be one picture."""

REDUCED = 64  # pixels a side, from which the hashes of turned images are taken: they look at 32


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (`error`) or that a person should look at (`warning`), and what to
    do.
    """

    severity: str
    dataset: str
    text: str


@dataclass
class Audit:
    """What was found of one data set. `hashes` (n, 2) are perceptual, of the images `rows` of its
    table; `turned` (7, n, 2) those of the images after each of `TURNS`.
    """

    name: str
    data: IQADataModule
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 2), dtype=np.uint64))
    turned: NDArray[np.uint64] = field(default_factory=lambda: np.empty((7, 0, 2), dtype=np.uint64))
    sha256: dict[str, str] = field(default_factory=dict)

    def note(self, level: str, text: str) -> None:
        """Add a finding, with the name of the data set where the text does not have it."""
        named = text if text.startswith("data set ") else f"data set {self.name!r}: {text}"
        self.findings.append(Finding(level, self.name, named))

    @property
    def parts(self) -> NDArray[np.str_]:
        """The part of each image `rows`, empty for none."""
        owner = np.full(len(self.data.samples), "", dtype="<U5")
        for label, rows in zip(Split._fields, self.data.parts, strict=True):
            owner[rows] = label
        return owner[self.rows]

    def column(self, name: str) -> NDArray[np.str_]:
        """A column of the table for each image `rows`, as text."""
        return self.data.samples.table[name].to_numpy(dtype=np.str_)[self.rows]


@dataclass(frozen=True)
class _Image:
    """One file: its size as (height, width), its hashes, or what is wrong with it."""

    size: tuple[int, int] = (0, 0)
    sha256: str = ""
    hashes: tuple[int, int] = (0, 0)
    turned: tuple[tuple[int, int], ...] = ()
    decisions: tuple[str, ...] = ()
    error: str = ""


def audit_dataset(name: str, data: IQADataModule, progress: Progress) -> Audit:
    """Read the table and every image of a data set, and note what is wrong.

    Args:
        name: what the data set is called in the report.
        data: the data set, before `setup`.
        progress: shows how far the images are: (items, how many, label) -> the items.
    """
    audit = Audit(name, data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            data.tabulate()
        except ValueError as error:
            audit.note("error", str(error))
            return audit
    for warning in caught:
        audit.note("warning", str(warning.message))
    _check_scores(audit)
    _check_references(audit)
    _check_images(audit, progress)
    return audit


def _check_scores(audit: Audit) -> None:
    """Count, range and direction of the scores; the range itself is checked with the table."""
    table = audit.data.samples.table
    mos = table["mos"].to_numpy(dtype=np.float64)
    native = tuple(float(end) for end in audit.data.native_range)
    audit.facts |= {
        "images": len(mos),
        "mos": [float(mos.min()), float(mos.max())],
        "native_range": list(native),
    }
    if np.ptp(mos) < 0.1 * (native[1] - native[0]):
        audit.note(
            "warning",
            f"the scores {mos.min():g} to {mos.max():g} fill less than a tenth of the range "
            f"{native}",
        )
    known = (
        table["level"].notna().to_numpy()
        if "level" in table
        else np.zeros(len(mos), dtype=np.bool_)
    )
    trends = []
    for _, group in table[known].groupby(["reference", "distortion"]):
        if group["level"].nunique() > 2 and group["mos"].nunique() > 1:
            trends.append(float(spearmanr(group["level"], group["mos"]).statistic))
    direction = "declared, not checkable without distortion levels"
    if trends:
        mean = float(np.mean(trends))
        direction = (
            f"scores fall with the level of distortion (mean SRCC {mean:.2f} of {len(trends)} "
            "series)"
        )
        if mean > 0:
            direction = direction.replace("fall", "rise")
            audit.note(
                "error",
                f"{direction}: they are lower is better; turn them round in the table or its "
                "parser",
            )
    if not audit.data.native_higher_is_better:
        direction += "; lower is better in the table, turned here"
    audit.facts["direction"] = direction


def _check_references(audit: Audit) -> None:
    """No reference may lie in two parts."""
    data = audit.data
    reference = data.samples.table["reference"].to_numpy(dtype=np.str_)
    sides = [set(reference[rows].tolist()) for rows in data.parts]
    leaking = sorted((sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2]))
    audit.facts |= {
        "references": len(set(reference.tolist())),
        "splits": data.splits,
        "split": data.split,
        "split_hash": data.split_hash,
        "parts": {label: len(rows) for label, rows in zip(Split._fields, data.parts, strict=True)},
    }
    if leaking:
        audit.note(
            "error",
            f"{len(leaking)} references are in two parts: {_listed(leaking)}; use splits=generated",
        )


def _check_images(audit: Audit, progress: Progress) -> None:
    """Every file: there, readable, its size and its hashes."""
    data, rows = audit.data, range(len(audit.data.samples))
    names = data.samples.table["image"].tolist()
    with ThreadPoolExecutor(2) as pool:
        images = list(
            progress(pool.map(lambda row: _examine(data, row), rows), len(rows), audit.name)
        )
    missing = [names[row] for row in rows if images[row].error == "missing"]
    unreadable = [image.error for image in images if image.error not in ("", "missing")]
    audit.rows = np.array([row for row in rows if not images[row].error], dtype=np.int64)
    audit.hashes = np.array([images[row].hashes for row in audit.rows], dtype=np.uint64).reshape(
        -1, 2
    )
    turned = np.array([images[row].turned for row in audit.rows], dtype=np.uint64)
    audit.turned = turned.reshape(-1, len(TURNS), 2).transpose(1, 0, 2)
    audit.sha256 = {names[row]: images[row].sha256 for row in audit.rows if images[row].sha256}
    audit.facts |= {"found": len(rows) - len(missing), "missing": missing, "unreadable": unreadable}
    audit.facts["decisions"] = {
        decision: [names[row] for row in rows if decision in images[row].decisions]
        for decision in DECISIONS
        if any(decision in image.decisions for image in images)
    }
    if missing:
        hint = other_name(data.root, data.image_path(names.index(missing[0])))
        audit.note(
            "error",
            f"{len(missing)} of {len(rows)} images are missing in {data.root}: "
            f"{_listed(missing)}{hint}; "
            f"get them from {data.home}",
        )
    if unreadable:
        audit.note("error", f"{len(unreadable)} images are unreadable: {_listed(unreadable)}")
    if len(audit.rows):
        sizes = np.array([images[row].size for row in audit.rows])
        ends = [
            sizes[k].tolist() for k in (sizes.prod(axis=1).argmin(), sizes.prod(axis=1).argmax())
        ]
        audit.facts |= {"smallest": ends[0], "largest": ends[1]}  # height, width


def _examine(data: IQADataModule, row: int) -> _Image:
    path = data.image_path(row)
    try:
        image = data.load_image(row)
        decisions = data.rule.decisions(path, data.name) if path.is_file() else []
    except ValueError as error:
        return _Image(error=str(error) if path.is_file() else "missing")
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    small = image.convert("L").resize((REDUCED, REDUCED), Image.Resampling.LANCZOS)
    turned = tuple(perceptual_hashes(small.transpose(turn)) for turn in TURNS)
    size = (image.height, image.width)
    return _Image(size, digest, perceptual_hashes(image), turned, tuple(decisions))


def perceptual_hashes(image: Image.Image) -> tuple[int, int]:
    """Two times 64 bits that hardly change with size, compression or tone.

    Signs of the low frequencies (pHash) and of the differences of neighbours (dHash): pictures that
    are alike in one by chance, such as textures, differ in the other.
    """
    small = image.convert("L")
    bits = (imagehash.phash(small).hash, imagehash.dhash(small).hash)
    first, second = (int.from_bytes(np.packbits(side.ravel()).tobytes(), "big") for side in bits)
    return first, second


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
