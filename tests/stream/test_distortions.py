"""Distortion streams: every image in its task, every reference in one part of all tasks."""

from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from iqa_lightning.datasets.base import unlocked_test_set
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.datasets.splits import Split
from iqa_lightning.images.transforms import View
from iqa_lightning.stream.distortions import distortion_stream
from iqa_lightning.stream.schedule import Phase
from tests.datasets.folders import noise
from tests.walks import ROOT

KINDS = ("jpeg", "blur", "noise")
PHASES = [Phase("finetune", 1, 4)]


def write_set(root: Path) -> Path:
    """Twelve references; jpeg at three levels, blur at two, noise at three, but the latter for ten
    of them only.
    """
    (root / "images").mkdir(parents=True)
    lines = ["image,mos,group,distortion"]
    for reference in range(12):
        for kind, levels in zip(KINDS, (3, 2, 3), strict=True):
            for level in range(levels if kind != "noise" or reference < 10 else 0):
                name = f"images/{reference}_{kind}_{level}.png"
                noise(len(lines)).save(root / name)
                lines.append(f"{name},{len(lines)},r{reference},{kind}")
    (root / "ratings.csv").write_text("\n".join(lines))
    return root


def names(stream: object, part: str) -> dict[str, list[str]]:
    """Images of a part of every task."""
    with unlocked_test_set():
        return {name: data.part(part).images for name, data in stream.data.items()}


@pytest.mark.parametrize("groups", [list(KINDS), {"lossy": ["jpeg"], "other": ["blur", "noise"]}])
@pytest.mark.parametrize("split", [1, 2, 3])
def test_tasks_and_parts(groups: list | dict, split: int, tmp_path: Path) -> None:
    data = partial(CSVData, root=write_set(tmp_path / "set"))
    stream = distortion_stream(data, groups, phases=PHASES, split=split, view=View(0, 32))
    stream.setup()
    wanted = groups if isinstance(groups, dict) else {name: [name] for name in groups}
    assert [task.name for task in stream.tasks] == list(wanted)
    parts = {part: names(stream, part) for part in Split._fields}
    found = [image for part in parts.values() for images in part.values() for image in images]
    assert len(found) == len(set(found)) == 12 * 5 + 10 * 3
    owners = [
        {image.split("_")[0] for images in part.values() for image in images}
        for part in parts.values()
    ]
    assert sum(map(len, owners)) == 12, "a reference is in two parts, of whatever tasks"
    for part in parts.values():
        for task, images in part.items():
            assert {image.split("_")[1] for image in images} == set(wanted[task])
    assert len({data.split_hash for data in stream.data.values()}) == len(wanted)


def test_images_and_scores_are_those_of_the_rows(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    stream = distortion_stream(
        partial(CSVData, root=root), list(KINDS), phases=PHASES, view=View(0, 32)
    )
    stream.setup()
    rated = dict(
        line.split(",")[:2] for line in (root / "ratings.csv").read_text().splitlines()[1:]
    )
    part = stream.data["blur"].part("train")
    for i, name in enumerate(part.images):
        assert part[i]["mos"] == float(rated[name])
        pixels = part[i]["image"].permute(1, 2, 0).numpy()
        assert (pixels == noise(int(rated[name]))).all()


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (["jpeg", "rain"], r"no distortion 'rain'; the distortions are blur, jpeg, noise"),
        ([], "stream.groups is empty"),
        ({}, "stream.groups is empty"),
        ({"a": ["jpeg", "blur"], "b": ["blur"]}, "'blur' is in two tasks"),
        ({"a": []}, "the list of distortions is empty"),
    ],
)
def test_wrong_groups(groups: list | dict, words: str, tmp_path: Path) -> None:
    data = partial(CSVData, root=write_set(tmp_path / "set"))
    with pytest.raises(ValueError, match=words):
        distortion_stream(data, groups, phases=PHASES).prepare_data()


def test_a_part_without_images_of_a_distortion(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    whole = CSVData(root)
    whole.prepare_data()
    spared = set(whole.samples.table["reference"].iloc[whole.parts.test])
    lines = (root / "ratings.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    rows = [[*row[:3], "blur"] if row[2] in spared and row[3] == "noise" else row for row in rows]
    (root / "ratings.csv").write_text("\n".join([lines[0], *map(",".join, rows)]))
    with pytest.raises(ValueError, match=r"distortions noise: 0 images in the test part"):
        CSVData(root, distortions=["noise"]).prepare_data()


def test_a_table_without_distortions(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    table = (root / "ratings.csv").read_text().splitlines()
    (root / "ratings.csv").write_text("\n".join(line.rpartition(",")[0] for line in table))
    with pytest.raises(ValueError, match="none, since its table does not name them"):
        CSVData(root, distortions=["jpeg"]).prepare_data()


@pytest.mark.parametrize(
    ("name", "count", "tasks"),
    [("kadid10k", 25, 25), ("tid2013", 24, 24), ("csiq", 6, 6), ("kadid10k_groups", 25, 11)],
)
def test_the_configured_streams_name_every_distortion_once(
    name: str, count: int, tasks: int
) -> None:
    groups = OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/stream/distortions_{name}.yaml"))[
        "groups"
    ]
    flat = (
        [item for group in groups.values() for item in group]
        if isinstance(groups, dict)
        else groups
    )
    assert len(groups) == tasks
    assert len(flat) == len(set(flat)) == count
