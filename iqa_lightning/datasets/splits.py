"""Partitions of a data set into train, val and test, disjoint by reference: the ten random ones,
the official one.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iqa_lightning.datasets.samples import Samples

SOURCES = ("generated", "files", "official", "tuning")


SPLITS = 10


RATIOS = (0.7, 0.1, 0.2)


# Two images are the least for which a rank correlation (test, val) and a pair (train) exist.
SMALLEST_PART = 2


TOLERANCE = 0.02


ATTEMPTS = 100


class Split(NamedTuple):
    """Sorted row numbers of the three parts of one split."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]


def generate_split(
    name: str, reference: Sequence[str], split: int, ratios: tuple[float, float, float] = RATIOS
) -> Split:
    """Split number `split` (1 to 10) of a table whose row i shows the content `reference[i]`.

    The references are put into a random order and cut where the number of images comes nearest to
    the ratios, every part having two images or more. An order whose parts all come within 2 % of
    the images to the ratios is taken, else the best of a hundred orders. Where every image is its
    own reference this gives round(0.7 n), round(0.1 n) and the rest. The ten splits differ from one
    another where the table has that many.

    The random numbers depend on `split` and on the set of references with their sizes alone: not on
    the machine, the order of the rows or the name, so data sets made from the same contents are
    split alike.

    Raises:
        ValueError: `split` is not in 1..10, or there is no way to give every part two images.
    """
    return _partition(name, reference, _checked(name, split), ratios)


def tuning_split(name: str, reference: Sequence[str], split: int) -> Split:
    """Split number `split` (1 to 10) of those that no table reports, to choose settings by.

    They are what `generate_split` would go on with, so that they differ from its ten and from one
    another where the table has that many.

    Raises:
        ValueError: `split` is not in 1..10, or there is no way to give every part two images.
    """
    return _partition(name, reference, SPLITS + _checked(name, split), RATIOS)


def _checked(name: str, split: int) -> int:
    if not 1 <= split <= SPLITS:
        raise ValueError(f"data set {name!r}: split is {split}; there are the splits 1 to {SPLITS}")
    return split


def _partition(
    name: str, reference: Sequence[str], number: int, ratios: tuple[float, float, float]
) -> Split:
    groups, member, sizes = np.unique(
        np.asarray(reference, dtype=np.str_), return_inverse=True, return_counts=True
    )
    # Raw bits: NumPy keeps them the same for ever, which it does not promise for its distributions
    # (NEP 19).
    bits = np.random.PCG64(_seed(groups, sizes))
    taken: set[bytes] = set()
    for _ in range(number):
        part_of_group = _draw(name, sizes, ratios, bits, taken)
        taken.add(part_of_group.tobytes())
    part = part_of_group[member]
    return Split(*(np.flatnonzero(part == number).astype(np.int64) for number in range(3)))


def official_split(samples: Samples, split: int) -> Split:
    """The split that the owners of a data set published, from the column `official` of its table.

    Its cells are `train`, `val`, `test`, or empty for an image that is in no part. Where it has no
    val part, an eighth of the train images (10 % to 70 %) become one, by reference, another one for
    each `split`; else `split` changes nothing.

    Raises:
        ValueError: there is no official split, an unknown part, a part of fewer than two images, or
            a reference in two.
    """
    name = samples.name
    column = (
        samples.table["official"].to_numpy(dtype=np.str_)
        if "official" in samples.table
        else np.array([""])
    )
    unknown = np.flatnonzero(~np.isin(column, ("", *Split._fields)))
    if unknown.size:
        raise ValueError(
            f"data set {name!r}, row {unknown[0] + 1}: the official part is "
            f"{str(column[unknown[0]])!r}; "
            f"it is train, val, test or empty"
        )
    if not (column == "test").any():
        raise ValueError(
            f"data set {name!r} has no official split; use splits=generated, or splits=files with "
            "lists"
        )
    parts = [np.flatnonzero(column == label).astype(np.int64) for label in Split._fields]
    if not len(parts[1]):
        parts[:2] = _carve(
            name, samples.table["reference"].to_numpy(dtype=np.str_), parts[0], split
        )
    result = Split(*parts)
    check_parts(samples, result, "official split")
    return result


def check_parts(samples: Samples, parts: Split, source: str) -> None:
    """Refuse a given split with a part that is too small or with a reference in two parts.

    Raises:
        ValueError: naming the part, or the reference and two of its images.
    """
    reference, image = (samples.table[column].tolist() for column in ("reference", "image"))
    owner: dict[str, tuple[str, str]] = {}
    for label, rows in zip(Split._fields, parts, strict=True):
        if len(rows) < SMALLEST_PART:
            raise ValueError(
                f"data set {samples.name!r}, {source}: {len(rows)} images in the {label} part; "
                f"at least {SMALLEST_PART} are needed"
            )
        for row in rows:
            part, first = owner.setdefault(reference[row], (label, image[row]))
            if part != label:
                raise ValueError(
                    f"data set {samples.name!r}, {source}: the reference {reference[row]!r} is in "
                    "two parts "
                    f"({first!r} in {part}, {image[row]!r} in {label}), so the test would leak; "
                    f"use splits=generated"
                )


def select_distortions(
    samples: Samples, parts: Split, distortions: Sequence[str]
) -> tuple[Samples, Split]:
    """The images with one of these distortions, each in the part that it had; so no reference
    changes its part.

    Raises:
        ValueError: a distortion that the table does not have, or a part with fewer than two of the
            images.
    """
    column = samples.table["distortion"]
    unknown = [name for name in distortions if not (column == name).any()]
    if unknown or not distortions:
        wanted = f"no distortion {unknown[0]!r}" if unknown else "the list of distortions is empty"
        known = ", ".join(sorted(set(column) - {""})) or "none, since its table does not name them"
        raise ValueError(f"data set {samples.name!r}: {wanted}; the distortions are {known}")
    kept = column.isin(list(distortions)).to_numpy()
    position = np.cumsum(kept) - 1
    selected = Samples(samples.name, samples.table[kept].reset_index(drop=True))
    result = Split(*(position[rows[kept[rows]]].astype(np.int64) for rows in parts))
    check_parts(selected, result, f"distortions {', '.join(distortions)}")
    return selected, result


def split_hash(samples: Samples, split: Split) -> str:
    """Sixteen hexadecimal digits over the names, scores and parts of the images."""
    part = np.full(len(samples), "-", dtype=object)
    for label, rows in zip(Split._fields, split, strict=True):
        part[rows] = label
    lines = zip(samples.table["image"], samples.table["mos"], part, strict=True)
    text = "\n".join(sorted(f"{image}\t{float(mos)!r}\t{label}" for image, mos, label in lines))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _carve(
    name: str, reference: NDArray[np.str_], train: NDArray[np.int64], split: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Train rows without, and those of, a val part drawn from them."""
    _checked(name, split)
    groups, member, sizes = np.unique(reference[train], return_inverse=True, return_counts=True)
    bits = np.random.PCG64(_seed(groups, sizes))
    for _ in range(split):
        order = np.argsort(bits.random_raw(len(sizes)), kind="stable")
    wanted = len(train) * RATIOS[1] / (RATIOS[0] + RATIOS[1])
    end = _nearest(np.cumsum(sizes[order]), wanted, SMALLEST_PART, len(train) - SMALLEST_PART)
    if end is None:
        raise ValueError(
            f"data set {name!r}: the {len(train)} official train images in {len(sizes)} groups of "
            "one content cannot "
            f"give a val part; use splits=generated"
        )
    chosen = np.isin(member, order[: end + 1])
    return train[~chosen], train[chosen]


def _seed(groups: NDArray[np.str_], sizes: NDArray[np.intp]) -> int:
    text = "\n".join(f"{group}\t{size}" for group, size in zip(groups, sizes, strict=True))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _draw(
    name: str,
    sizes: NDArray[np.intp],
    ratios: tuple[float, float, float],
    bits: np.random.PCG64,
    taken: set[bytes],
) -> NDArray[np.int8]:
    """The part (0 train, 1 val, 2 test) of every group."""
    best: NDArray[np.int8] | None = None
    smallest = (2, np.inf)
    for _ in range(ATTEMPTS):
        part = _cut(np.argsort(bits.random_raw(len(sizes)), kind="stable"), sizes, ratios)
        if part is None:
            continue
        shares = np.bincount(part, weights=sizes, minlength=3) / sizes.sum()
        # A repeated partition is worse than any new one, however well balanced.
        badness = (
            int(part.tobytes() in taken),
            max(float(np.abs(shares - ratios).max()) - TOLERANCE, 0.0),
        )
        if badness < smallest:
            best, smallest = part, badness
        if smallest == (0, 0.0):
            break
    if best is None:
        raise ValueError(
            f"data set {name!r}: {sizes.sum()} images in {len(sizes)} groups of one content "
            "cannot be split into "
            f"train, val and test with {SMALLEST_PART} images or more each and no group in two "
            "parts; "
            f"add images of other contents, or correct the groups"
        )
    return best


def _cut(
    order: NDArray[np.int64], sizes: NDArray[np.intp], ratios: tuple[float, float, float]
) -> NDArray[np.int8] | None:
    """The parts of the groups in this order: val first, then test, the rest train; None where a
    part is too small.
    """
    total = int(sizes.sum())
    ends = np.cumsum(sizes[order])
    val = _nearest(ends, ratios[1] * total, SMALLEST_PART, total)
    if val is None:
        return None
    test = _nearest(
        ends, (ratios[1] + ratios[2]) * total, int(ends[val]) + SMALLEST_PART, total - SMALLEST_PART
    )
    if test is None:
        return None
    part = np.zeros(len(sizes), dtype=np.int8)
    part[order[: val + 1]] = 1
    part[order[val + 1 : test + 1]] = 2
    return part


def _nearest(ends: NDArray[np.int64], wanted: float, low: int, high: int) -> int | None:
    """Position of the end nearest to `wanted` among those between `low` and `high`."""
    distance = np.where((ends >= low) & (ends <= high), np.abs(ends - wanted), np.inf)
    position = int(np.argmin(distance))
    return position if np.isfinite(distance[position]) else None
