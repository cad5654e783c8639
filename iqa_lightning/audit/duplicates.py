"""Images that show the same picture, inside a data set and across those of a stream, and which of
them are known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iqa_lightning.audit.check import TURNS, Audit, Finding

DISTANCES = (6, 10)
"""Largest numbers of bits, of 64 each, in which pHash and dHash of two versions of a picture
differ.

Of four million pairs of CLIVE, MMP-2K, TTL and AVT-AI five are as near as this, and all five are
one scene each."""


BLOCK = 256


@dataclass(frozen=True)
class Duplicate:
    """The nearest two images of two contents; `count` pairs of images of these contents are as near
    as that counts. `turn` says how the second stands to the first, empty where alike.
    """

    datasets: tuple[str, str]
    images: tuple[str, str]
    parts: tuple[str, str]
    distance: int
    identical: bool
    count: int
    waived: str = ""
    turn: str = ""

    @property
    def severity(self) -> str:
        """How bad it is: what is tested must not have been learnt from, elsewhere or under another
        name.
        """
        across, leaks = self.datasets[0] != self.datasets[1], self.parts[0] != self.parts[1]
        if self.waived or not (across or leaks):
            return "note"
        return "error" if leaks and (across or self.identical) else "warning"

    def __str__(self) -> str:
        shown = " = ".join(
            f"{d}/{i} ({p or 'unused'})" for d, i, p in zip(*self._sides(), strict=True)
        )
        turn = f"{self.turn}, " if self.turn else ""
        near = "the same file" if self.identical else f"{self.distance} of 64 bits differ"
        return f"{shown}, {turn}{near}"

    def _sides(self) -> tuple[tuple[str, str], tuple[str, str], tuple[str, str]]:
        return self.datasets, self.images, self.parts


def find_duplicates(
    audits: Sequence[Audit], waivers: Sequence[Mapping[str, Any]] = ()
) -> list[Duplicate]:
    """Pairs of images of different contents that look the same, be it mirrored or turned, nearest
    first.

    Images of one reference in one data set are versions of one picture by design and are not
    compared.
    """
    found: list[Duplicate] = []
    usable = [audit for audit in audits if len(audit.rows)]
    for k, first in enumerate(usable):
        for second in usable[k:]:
            found += _between(first, second, waivers)
    return sorted(found, key=lambda pair: (pair.datasets, pair.distance, pair.images))


def _between(first: Audit, second: Audit, waivers: Sequence[Mapping[str, Any]]) -> list[Duplicate]:
    references = first.column("reference"), second.column("reference")
    same = first is second
    found = [near_pairs(first.hashes, second.hashes, same=same)]
    found += [near_pairs(first.hashes, turned, same=same) for turned in second.turned]
    turns = ("", *TURNS.values())
    # the plain way comes first, and the nearest of the ways is kept
    how = np.repeat(np.arange(len(found)), [len(pairs) for pairs in found])
    pairs = np.column_stack([np.concatenate(found), how])
    if (
        first is second or first.data.root.resolve() == second.data.root.resolve()
    ):  # distortions of one data set
        pairs = pairs[references[0][pairs[:, 0]] != references[1][pairs[:, 1]]]
    nearest: dict[tuple[str, str], tuple[int, int, int, int]] = {}
    near: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for i, j, distance, way in pairs.tolist():
        key = str(references[0][i]), str(references[1][j])
        key = (min(key), max(key)) if first is second else key
        near.setdefault(key, set()).add((i, j))
        nearest[key] = min(nearest.get(key, (65, 0, 0, 0)), (distance, way, i, j))
    images, parts = (first.column("image"), second.column("image")), (first.parts, second.parts)
    duplicates = []
    for key, (distance, way, i, j) in nearest.items():
        names = str(images[0][i]), str(images[1][j])
        digests = first.sha256.get(names[0]), second.sha256.get(names[1])
        identical = digests[0] is not None and digests[0] == digests[1]
        sides, sets = (str(parts[0][i]), str(parts[1][j])), (first.name, second.name)
        why = waived(sets, names, waivers)
        count, turn = len(near[key]), turns[way]
        duplicates.append(Duplicate(sets, names, sides, distance, identical, count, why, turn))
    return duplicates


def near_pairs(
    first: NDArray[np.uint64], second: NDArray[np.uint64], *, same: bool
) -> NDArray[np.int64]:
    """Positions i, j and distance by pHash of all pairs of hashes (n, 2) that are near, (pairs, 3);
    i < j if `same`.
    """
    found = [np.empty((0, 3), dtype=np.int64)]
    for start in range(0, len(first), BLOCK):
        bits = np.bitwise_count(first[start : start + BLOCK, None, 0] ^ second[None, :, 0])
        i, j = np.nonzero(bits <= DISTANCES[0])
        near = np.bitwise_count(first[i + start, 1] ^ second[j, 1]) <= DISTANCES[1]
        if same:
            near &= i + start < j
        i, j = i[near], j[near]
        found.append(np.stack([i + start, j, bits[i, j].astype(np.int64)], axis=1))
    return np.concatenate(found)


def waived(
    datasets: tuple[str, str], images: tuple[str, str], waivers: Sequence[Mapping[str, Any]]
) -> str:
    """The reason why an overlap is accepted, empty where it is not."""
    full = {f"{dataset}/{image}" for dataset, image in zip(datasets, images, strict=True)}
    for waiver in waivers:
        if (
            set(waiver.get("datasets", ())) == set(datasets)
            or set(waiver.get("images", ())) == full
        ):
            return str(waiver["reason"])
    return ""


def check_waivers(source: str, waivers: object) -> list[Mapping[str, Any]]:
    """The entries of a waiver file, each `datasets: [a, b]` or `images: [a/1.png, b/2.png]` with a
    `reason`.

    Raises:
        ValueError: naming the file and the entry that is none.
    """
    entries = [] if waivers is None else waivers
    if not isinstance(entries, list):
        raise ValueError(
            f"{source}: not a list of waivers, each with datasets or images and a reason"
        )
    for i, entry in enumerate(entries, start=1):
        keys = set(entry) if isinstance(entry, dict) else set()
        pair = entry.get("datasets", entry.get("images")) if keys else None
        if (
            keys not in ({"datasets", "reason"}, {"images", "reason"})
            or not (
                isinstance(pair, list)
                and len(pair) == 2
                and all(isinstance(side, str) for side in pair)
            )
            or not entry["reason"]
        ):
            raise ValueError(
                f"{source}, waiver {i}: {entry!r} is not 'datasets: [a, b]' or 'images: [a/1.png, "
                "b/2.png]' "
                f"with a 'reason'"
            )
    return entries


def findings(duplicates: Sequence[Duplicate]) -> list[Finding]:
    """Errors and warnings among the duplicates."""
    remedy = {
        "error": "what is tested would have been learnt from: remove one of the two, or waive it "
        "with a reason",
        "warning": "look at the two: remove one, give them one group (write_groups=<file> "
        "proposes it), or waive it with a reason",
    }
    return [
        Finding(
            pair.severity,
            "+".join(dict.fromkeys(pair.datasets)),
            f"one picture twice: {pair}; {remedy[pair.severity]}",
        )
        for pair in duplicates
        if pair.severity != "note"
    ]
