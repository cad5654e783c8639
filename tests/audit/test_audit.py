"""What the check finds: planted faults, each found once and named, and nothing in a sound folder."""

import hashlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from iqa_lightning.audit.check import Audit, audit_dataset, perceptual_hashes
from iqa_lightning.audit.duplicates import check_waivers, find_duplicates, findings, near_pairs
from iqa_lightning.audit.manifest import verify_manifest
from iqa_lightning.datasets import base
from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.datasets.clive import CLIVE
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.datasets.splits import Split
from tests.datasets.folders import write_csv


def photograph(seed: int) -> Image.Image:
    """Large patches of grey, as a photograph has them: no two seeds look alike."""
    grey = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return Image.fromarray(grey).resize((96, 72), Image.Resampling.BICUBIC).convert("RGB")


def write_photographs(root: Path, first: int, count: int = 20) -> Path:
    write_csv(root, count)
    for i in range(count):
        photograph(first + i).save(root / "images" / f"{i}.png")
    return root


def audited(data: IQADataModule) -> Audit:
    def silent(items: Iterable[Any], count: int, label: str) -> Iterable[Any]:
        return items

    return audit_dataset(data.name, data, silent)


def test_a_sound_folder(tmp_path: Path) -> None:
    audit = audited(CSVData(write_photographs(tmp_path / "set", 0), native_range=(0, 5)))
    assert audit.findings == []
    expected = {
        "images": 20,
        "found": 20,
        "missing": [],
        "unreadable": [],
        "mos": [0.0, 4.75],
        "references": 20,
    }
    expected |= {
        "native_range": [0.0, 5.0],
        "parts": {"train": 14, "val": 2, "test": 4},
        "splits": "generated",
    }
    assert {key: audit.facts[key] for key in expected} == expected
    assert audit.facts["smallest"] == audit.facts["largest"] == [72, 96]
    name = "images/3.png"
    assert audit.sha256[name] == hashlib.sha256((tmp_path / "set" / name).read_bytes()).hexdigest()
    assert find_duplicates([audit]) == []
    json.dumps(audit.facts)


def test_missing_and_unreadable_files_are_all_named(tmp_path: Path) -> None:
    root = write_photographs(tmp_path / "set", 0)
    for i in (3, 5):
        (root / f"images/{i}.png").unlink()
    (root / "images/8.png").write_bytes(b"")
    audit = audited(CSVData(root))
    assert audit.facts["missing"] == ["images/3.png", "images/5.png"]
    (unreadable,) = audit.facts["unreadable"]
    assert "8.png" in unreadable
    texts = [finding.text for finding in audit.findings if finding.severity == "error"]
    assert "2 of 20 images are missing" in texts[0]
    assert "images/3.png, images/5.png; get them from" in texts[0]
    assert "1 images are unreadable" in texts[1]
    assert len(audit.rows) == 17


def test_a_table_that_cannot_be_used_and_where_to_get_a_set(tmp_path: Path) -> None:
    (finding,) = audited(CLIVE(tmp_path / "nowhere")).findings
    assert finding.severity == "error"
    assert "live.ece.utexas.edu" in finding.text


@pytest.mark.parametrize(("sign", "errors"), [(-1, 0), (1, 1)])
def test_the_direction_is_checked_where_levels_are_known(
    sign: int, errors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Levels(CSVData):
        """Five levels of four distortions; the scores fall or rise with them."""

        def read_table(self) -> pd.DataFrame:
            table = super().read_table()
            table["level"] = [i % 5 + 1.0 for i in range(20)]
            table["distortion"] = [str(i // 5) for i in range(20)]
            table["mos"] = 50.0 + sign * table["level"] + np.arange(20) / 100
            table["reference"] = [f"r{i // 5}" for i in range(20)]
            self.native_range = (0, 100)
            return table

    kept = base.check_table
    monkeypatch.setattr(
        base,
        "check_table",
        lambda name, source, table: kept(name, source, table).assign(level=table["level"]),
    )
    monkeypatch.setattr(
        Levels,
        "make_split",
        lambda self, samples: Split(*map(np.array, ([*range(10)], [10, 11], [15, 16]))),
    )
    audit = audited(Levels(write_photographs(tmp_path / "set", 0)))
    assert ("fall" if sign < 0 else "rise") in audit.facts["direction"]
    assert "of 4 series" in audit.facts["direction"]
    wrong = [finding.text for finding in audit.findings if "lower is better" in finding.text]
    assert len(wrong) == errors
    assert any("less than a tenth" in finding.text for finding in audit.findings)


def test_references_in_two_parts_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_photographs(tmp_path / "set", 0)
    rows = [f"images/{i}.png,{i},r{i % 12}" for i in range(20)]
    (root / "ratings.csv").write_text("\n".join(["image,mos,group", *rows]))
    leaking = Split(np.arange(12), np.arange(12, 14), np.arange(14, 20))
    monkeypatch.setattr(CSVData, "make_split", lambda self, samples: leaking)
    errors = [
        finding.text for finding in audited(CSVData(root)).findings if finding.severity == "error"
    ]
    assert len(errors) == 1
    assert "8 references are in two parts: r0, r1" in errors[0]


# --- duplicates


def test_hashes_hardly_change_with_size_and_compression(tmp_path: Path) -> None:
    image = photograph(1)
    image.save(tmp_path / "1.jpg", quality=40)
    versions = [
        image.resize((60, 45)),
        image.filter(ImageFilter.GaussianBlur(1)),
        Image.open(tmp_path / "1.jpg"),
    ]
    whole = np.array([perceptual_hashes(image)], dtype=np.uint64)
    for version in versions:
        near = np.array([perceptual_hashes(version)], dtype=np.uint64)
        assert len(near_pairs(whole, near, same=False)) == 1
    others = np.array([perceptual_hashes(photograph(i)) for i in range(2, 40)], dtype=np.uint64)
    assert len(near_pairs(whole, others, same=False)) == 0


@pytest.mark.parametrize("same", [True, False])
def test_near_pairs_are_those_of_a_plain_loop(same: bool) -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 2**63, (600, 2), dtype=np.uint64)
    second = first if same else generator.integers(0, 2**63, (300, 2), dtype=np.uint64)
    for i, bits in ((3, (2, 3)), (400, (6, 10)), (10, (7, 0)), (11, (0, 11))):
        second[i % 290 + 1] = [int(first[i, k]) ^ ((1 << bits[k]) - 1) for k in (0, 1)]
    expected = []
    for i in range(len(first)):
        for j in range(i + 1 if same else 0, len(second)):
            distance = [(int(first[i, k]) ^ int(second[j, k])).bit_count() for k in (0, 1)]
            if distance[0] <= 6 and distance[1] <= 10:
                expected.append([i, j, distance[0]])
    assert len(expected) >= 2
    assert near_pairs(first, second, same=same).tolist() == expected


def pair_of_sets(tmp_path: Path, *, parts: tuple[str, str], copy: str) -> list[Audit]:
    """Two folders, an image of the first being in the second too, in these parts."""
    sets = [CSVData(write_photographs(tmp_path / name, 100 * k)) for k, name in enumerate("ab")]
    for data in sets:
        data.tabulate()
    i, j = (int(getattr(data.parts, part)[0]) for data, part in zip(sets, parts, strict=True))
    image = photograph(i)
    (image if copy == "file" else image.resize((120, 90))).save(
        tmp_path / "b" / "images" / f"{j}.png"
    )
    return [audited(data) for data in sets]


@pytest.mark.parametrize(
    ("parts", "level"),
    [(("train", "test"), "error"), (("test", "train"), "error"), (("train", "train"), "warning")],
)
@pytest.mark.parametrize("copy", ["file", "resized"])
def test_a_picture_in_two_sets(
    parts: tuple[str, str], level: str, copy: str, tmp_path: Path
) -> None:
    audits = pair_of_sets(tmp_path, parts=parts, copy=copy)
    (found,) = find_duplicates(audits)
    rows = [
        int(getattr(audit.data.parts, part)[0]) for audit, part in zip(audits, parts, strict=True)
    ]
    assert found.images == tuple(f"images/{row}.png" for row in rows)
    assert (found.datasets, found.parts, found.identical) == (("a", "b"), parts, copy == "file")
    (finding,) = findings([found])
    assert finding.severity == found.severity == level
    assert (
        f"a/images/{rows[0]}.png ({parts[0]}) = b/images/{rows[1]}.png ({parts[1]})" in finding.text
    )
    by_images = {"images": [f"b/{found.images[1]}", f"a/{found.images[0]}"], "reason": "known"}
    for waiver in ({"datasets": ["b", "a"], "reason": "known"}, by_images):
        (waived,) = find_duplicates(audits, [waiver])
        assert (waived.waived, waived.severity, findings([waived])) == ("known", "note", [])
    (other,) = find_duplicates(audits, [{"datasets": ["a", "c"], "reason": "known"}])
    assert other.severity == level


@pytest.mark.parametrize(
    ("parts", "copy", "level"),
    [
        (("train", "test"), "file", "error"),
        (("train", "test"), "resized", "warning"),
        (("train", "train"), "file", "note"),
    ],
)
def test_a_picture_twice_in_a_set(
    parts: tuple[str, str], copy: str, level: str, tmp_path: Path
) -> None:
    data = CSVData(write_photographs(tmp_path / "a", 0))
    data.tabulate()
    i, j = int(getattr(data.parts, parts[0])[0]), int(getattr(data.parts, parts[1])[1])
    (photograph(i) if copy == "file" else photograph(i).resize((120, 90))).save(
        tmp_path / "a/images" / f"{j}.png"
    )
    (found,) = find_duplicates([audited(data)])
    assert {*found.images} == {f"images/{i}.png", f"images/{j}.png"}
    assert found.severity == level
    assert [finding.severity for finding in findings([found])] == (
        [] if level == "note" else [level]
    )


def test_versions_of_one_reference_are_no_duplicates_but_are_counted_across_sets(
    tmp_path: Path,
) -> None:
    for k, name in enumerate("ab"):
        root = write_photographs(tmp_path / name, 100 * k)
        rows = [f"images/{i}.png,{i},r{i // 2}" for i in range(20)]
        (root / "ratings.csv").write_text("\n".join(["image,mos,group", *rows]))
        for i in (0, 1):
            photograph(77).resize((90 + i, 70)).save(root / "images" / f"{i}.png")
    one, two = (audited(CSVData(tmp_path / name)) for name in "ab")
    assert [
        pair for pair in find_duplicates([one]) if pair.images == ("images/0.png", "images/1.png")
    ] == []
    across = [pair for pair in find_duplicates([one, two]) if pair.datasets == ("a", "b")]
    assert len(across) == 1
    assert across[0].count == 4


@pytest.mark.parametrize(
    "waivers",
    [
        {"datasets": ["a", "b"], "reason": "x"},
        [{"datasets": ["a", "b"]}],
        [{"datasets": ["a"], "reason": "x"}],
        [{"datasets": ["a", "b"], "images": ["a/1", "b/1"], "reason": "x"}],
        [{"datasets": ["a", "b"], "reason": ""}],
        [{"pictures": ["a", "b"], "reason": "x"}],
        ["a"],
    ],
)
def test_a_waiver_that_is_none_is_refused(waivers: object) -> None:
    with pytest.raises(ValueError, match=r"known\.yaml"):
        check_waivers("known.yaml", waivers)
    assert check_waivers("known.yaml", None) == []


# --- checksums


def test_the_manifest_is_written_once_and_compared_ever_after(tmp_path: Path) -> None:
    root, file = write_photographs(tmp_path / "set", 0), tmp_path / "set.sha256"

    def errors() -> list[str]:
        audit = audited(CSVData(root))
        verify_manifest(audit, file)
        return [audit.facts["manifest"], *(finding.text for finding in audit.findings)]

    assert errors() == ["written"]
    assert errors() == ["verified"]
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", str(file)], cwd=root, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before = file.read_bytes()
    photograph(50).save(root / "images/4.png")
    state, text = errors()
    assert state == "differs"
    assert "1 files are changed" in text
    assert "'images/4.png'" in text
    photograph(4).save(root / "images/4.png")
    (root / "ratings.csv").write_text(
        (root / "ratings.csv").read_text().replace("7.png,1.75", "7.png,1.74")
    )
    assert "the first is the table" in errors()[1]
    assert file.read_bytes() == before
    file.write_text("garbage\n")
    with pytest.raises(ValueError, match=r"set\.sha256, line 1: 'garbage'"):
        errors()


def test_a_folder_that_is_not_whole_gets_no_manifest(tmp_path: Path) -> None:
    root, file = write_photographs(tmp_path / "set", 0), tmp_path / "set.sha256"
    (root / "images/4.png").unlink()
    audit = audited(CSVData(root))
    verify_manifest(audit, file)
    assert audit.facts["manifest"] == "none"
    assert not file.exists()
