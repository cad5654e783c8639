"""Published pair lists: the facts of the one that ships, and a stream that learns exactly these
pairs.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from iqa_lightning.images.transforms import View
from iqa_lightning.stream.pair_files import FilePairs
from iqa_lightning.stream.pairs import InBatchPairs, ListedPairs, SampledPairs
from iqa_lightning.stream.schedule import Phase
from iqa_lightning.stream.stream import TaskStream, folder_stream
from iqa_lightning.stream.training_images import ReplayMemory, TrainingImages
from tests.datasets.folders import write_csv

LIVE = "splits/biqa_cl/IQA_Database/databaserelease2/splits2/1"


def rows(file: Path) -> list[list[str]]:
    return [line.split("\t") for line in file.read_bytes().decode().split("\r") if line]


@pytest.mark.parametrize("target", ["soft", "binary"])
def test_the_official_list_of_live(target: str, shared_data: Path) -> None:
    """Specs of the protocol, section 4: distinct pairs, every image, g by Thurstone, y by the
    strict order.
    """
    scores = {
        name: (float(mos), float(std))
        for name, mos, std in rows(shared_data / LIVE / "live_train_score.txt")
    }
    names = sorted(scores)
    pairs = FilePairs(shared_data / "splits/biqa_cl", target=target)
    pairs.find([names], ["live"], [0])
    table = np.concatenate(pairs.draw([len(names)], ["live"], 0, 64)(np.random.default_rng(0)))
    assert table.shape == (7000, 2)
    assert len({frozenset(pair) for pair in table.tolist()}) == 7000
    assert (table[:, 0] != table[:, 1]).all()
    assert set(table.ravel()) == set(range(538))
    assert np.median(np.bincount(table.ravel())) == 26
    mos, std = (np.array([[scores[names[i]][k] for i in pair] for pair in table]) for k in (0, 1))
    difference = mos[:, 0] - mos[:, 1]
    assert (difference != 0).all(), "no ties"
    found = pairs.targets(torch.from_numpy(table), torch.zeros(len(table))).numpy()
    if target == "binary":
        assert np.array_equal(found, difference > 0)
    else:
        # both are written with six decimals; float32 adds 6e-8
        np.testing.assert_allclose(found, norm.cdf(difference / np.hypot(*std.T)), atol=2e-6)
    listed = {
        (row[0], row[1]): float(row[2 if target == "soft" else 5])
        for row in rows(shared_data / LIVE / "live_train.txt")
    }
    assert [listed[names[i], names[j]] for i, j in table.tolist()] == pytest.approx(
        found.tolist(), abs=1e-7
    )


def test_which_pairs_bring_their_targets(tmp_path: Path) -> None:
    assert isinstance(FilePairs(tmp_path), ListedPairs)
    assert not isinstance(SampledPairs(), ListedPairs)
    assert not isinstance(InBatchPairs(), ListedPairs)


PAIRS = [(4, 5, 0.25, 0), (6, 5, 0.75, 1), (7, 9, 1.0, 1), (10, 4, 0.0, 0), (11, 8, 0.5, 1)]


def write_pairs(folder: Path, name: str, text: str | None = None) -> Path:
    """Pairs of images 4 to 11 of a folder data set, split 2."""
    place = folder / name / "splits2" / "2"
    place.mkdir(parents=True, exist_ok=True)
    lines = [f"IMAGES/{a}.png\timages/{b}.png\t{g:.6f}\t1.0\t1.0\t{y}" for a, b, g, y in PAIRS]
    (place / f"{name}_train.txt").write_bytes(("\r".join(lines) if text is None else text).encode())
    return folder


def ready(tmp_path: Path, target: str, order: list | None = None) -> TaskStream:
    """A stream of two folders, joined or not, whose train part are the images 4 to 19."""
    lists = tmp_path / "lists"
    for name in ("a", "b"):
        root = write_csv(tmp_path / name)
        place = write_pairs(lists, name) / name / "splits2" / "2"
        ratings = [
            line.replace(",", "\t") + "\n"
            for line in (root / "ratings.csv").read_text().splitlines()[1:]
        ]
        for part, chosen in (
            ("val", ratings[:2]),
            ("test", ratings[2:4]),
            ("train_score", ratings[4:]),
        ):
            (place / f"{name}_{part}.txt").write_text("".join(chosen))
    stream = folder_stream(
        [str(tmp_path / "a"), str(tmp_path / "b")],
        phases=[Phase("finetune", 1, 4)],
        view=View(0, 32),
        split=2,
        splits="files",
        split_files=str(lists),
        pairs=FilePairs(lists, 2, target),
        order=order,
    )
    stream.setup()
    stream.trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=1)
    return stream


@pytest.mark.parametrize(("target", "column"), [("soft", 2), ("binary", 3)])
@pytest.mark.parametrize("order", [["a"], [["a", "b"]]])
def test_a_stream_learns_the_listed_pairs(
    target: str, column: int, order: list, tmp_path: Path
) -> None:
    found: list[tuple[int, int, float]] = []
    for batch in ready(tmp_path, target, order).train_dataloader():
        index = batch["index"][batch["pairs"]]
        assert len(index) in (1, 2)
        found += [
            (i, j, t) for (i, j), t in zip(index.tolist(), batch["target"].tolist(), strict=True)
        ]
    starts = range(len(order[0]) if isinstance(order[0], list) else 1)
    wanted = [(p[0] - 4 + 16 * k, p[1] - 4 + 16 * k, p[column]) for k in starts for p in PAIRS]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("images", ["all", "seen"])
def test_lists_of_tasks_that_are_learnt_together_are_joined(images: str, tmp_path: Path) -> None:
    """JL in the place of the first task, JL-CL at the second: the lists of both."""
    stream = ready(tmp_path, "soft", ["a", "b"])
    stream.serve(TrainingImages(images))
    stream.trainer.current_epoch = 0 if images == "all" else 1
    found = []
    for batch in stream.train_dataloader():
        index = batch["index"][batch["pairs"]]
        sets = batch["dataset_index"][batch["pairs"]]
        assert (sets[:, 0] == sets[:, 1]).all()
        rows = zip(sets[:, 0].tolist(), index.tolist(), batch["target"].tolist(), strict=True)
        found += [(k, *both, target) for k, both, target in rows]
    wanted = [(k, p[0] - 4, p[1] - 4, p[2]) for k in range(2) for p in PAIRS]
    assert sorted(found) == sorted(wanted)


def test_pairs_of_a_memory_are_drawn_with_targets_from_the_ratings(tmp_path: Path) -> None:
    stream = ready(tmp_path, "binary", ["a", "b"])
    stream.serve(TrainingImages("task", ReplayMemory(12)))
    stream.trainer.current_epoch = 1
    shown = []
    for batch in stream.train_dataloader():
        index, memory = batch["index"][batch["pairs"]], batch["replay"]
        rows = zip(index.tolist(), batch["target"].tolist(), strict=True)
        shown += [(*both, target) for both, target in rows]
        both = memory["mos"][memory["pairs"]]
        assert memory["target"].tolist() == (both[:, 0] > both[:, 1]).float().tolist()
        assert set(memory["task"].tolist()) == {1}
    assert sorted(shown) == sorted((p[0] - 4, p[1] - 4, p[3]) for p in PAIRS)
    stream.serve(TrainingImages("replay_memory", ReplayMemory(12)))
    with pytest.raises(ValueError, match="in a memory alone"):
        stream.train_dataloader()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "1.png\t2.png\t0.5\t1\t1\t1\r1.png\t33.png\t0.5\t1\t1\t1",
            r"row 2: the image '33\.png' is not in",
        ),
        (
            "1.png\t2.png\t0.5\t1\t1\t1\r2.png\t1.png\t0.5\t1\t1\t1",
            r"row 2 .*the pair of row 1 again",
        ),
        ("1.png\t1.png\t0.5\t1\t1\t1", r"row 1 .*an image with itself"),
        ("1.png\t2.png\t1.5\t1\t1\t1", r"row 1 .*the target 1\.5 is not in \[0, 1\]"),
        ("1.png\t2.png\thigh\t1\t1\t1", r"row 1 .*'high' in column 3"),
        ("1.png\t2.png\t0.5\t1\t1", r"row 1 .*5 cells .* at least 6"),
        ("", "has no rows"),
    ],
)
def test_wrong_pair_lists_are_refused(text: str, words: str, tmp_path: Path) -> None:
    pairs = FilePairs(write_pairs(tmp_path, "a", text), 2, "soft")
    with pytest.raises(ValueError, match=words):
        pairs.find([[f"images/{i}.png" for i in range(10)]], ["a"], [0])


def test_wrong_choices_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, "a", "1.png\t2.png\t0.5\t1\t1\t0.5")
    with pytest.raises(ValueError, match=r"the target 0\.5 is not 0 or 1"):
        FilePairs(tmp_path, 2).find([["1.png", "2.png"]], ["a"], [0])
    with pytest.raises(ValueError, match=r"no pair list b_train\.txt of split 2 .*pairs=paper"):
        FilePairs(tmp_path, 2).find([["1.png", "2.png"]], ["b"], [0])
    with pytest.raises(ValueError, match="'hard'"):
        FilePairs(tmp_path, 2, "hard")
