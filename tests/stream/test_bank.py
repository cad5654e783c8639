"""Fixed crops: which views there are, which of them an epoch shows, how they are shared out."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from iqa_lightning.images.transforms import View
from iqa_lightning.stream.schedule import Phase
from iqa_lightning.stream.stream import TaskStream, folder_stream
from iqa_lightning.stream.training_images import FixedCrops

CROPS, TRAIN, SIDE = 3, 28, 24
PHASES = [Phase("warmup", 2, 8, trains="heads", fixed_crops=CROPS), Phase("finetune", 1, 8)]


def at(folders: list[Path], epoch: int, rank: int = 0, ranks: int = 1, seed: int = 0) -> TaskStream:
    stream = folder_stream(
        [str(folder) for folder in folders], phases=PHASES, view=View(0, SIDE), seed=seed
    )
    stream.setup()
    stream.trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=ranks)
    return stream


def shown(stream: TaskStream) -> dict[int, torch.Tensor]:
    """The crops of an epoch by number; the same number is always the same crop of the image of its
    index.
    """
    found: dict[int, torch.Tensor] = {}
    for batch in stream.train_dataloader():
        for crop, index, image in zip(
            batch["crop"].tolist(), batch["index"].tolist(), batch["image"], strict=True
        ):
            assert crop // CROPS == index
            assert torch.equal(found.setdefault(crop, image), image)
    return found


def bank_of(stream: TaskStream) -> FixedCrops:
    bank = stream.train_dataloader().dataset
    assert isinstance(bank, FixedCrops)
    return bank


def test_epochs_show_some_of_the_same_crops(folders: list[Path]) -> None:
    stream = at(folders, 0)
    whole = {index: item for batch in bank_of(stream).loader(10**6) for index, item in zip(
        batch["index"].tolist(), batch["image"], strict=True)}  # fmt: skip
    assert sorted(whole) == list(range(CROPS * TRAIN))
    epochs = [shown(at(folders, epoch)) for epoch in (0, 1)]
    assert epochs[0].keys() != epochs[1].keys()
    for epoch in epochs:
        assert len(epoch) == TRAIN
        assert all(torch.equal(whole[crop], image) for crop, image in epoch.items())
    assert {crop % CROPS for epoch in epochs for crop in epoch} == set(range(CROPS))
    assert len({image.numpy().tobytes() for image in whole.values()}) > 0.9 * len(whole)


def test_a_crop_is_a_window_of_its_image(folders: list[Path]) -> None:
    stream = at(folders, 0)
    part, bank = stream.data["a"].part("train"), bank_of(stream)
    for crop in (0, 5, CROPS * TRAIN - 1):
        image = part[crop // CROPS]["image"]
        windows = (
            image.unfold(1, SIDE, 1)
            .unfold(2, SIDE, 1)
            .permute(1, 2, 0, 3, 4)
            .reshape(-1, 3, SIDE, SIDE)
        )
        both = torch.cat([windows, windows.flip(-1)])
        assert (both == bank[crop]["image"]).flatten(1).all(dim=1).any()


def test_other_seeds_and_tasks_have_other_crops(folders: list[Path]) -> None:
    views = [
        bank_of(at(folders, epoch, seed=seed)).views for epoch, seed in ((0, 0), (0, 1), (3, 0))
    ]
    assert all((one != other).any() for k, one in enumerate(views) for other in views[:k])


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_the_crops(ranks: int, folders: list[Path]) -> None:
    bank = bank_of(at(folders, 0))
    found = [index for rank in range(ranks) for batch in bank.loader(5 * SIDE * SIDE, rank, ranks)
             for index in batch["index"].tolist()]  # fmt: skip
    assert sorted(found) == list(range(CROPS * TRAIN))


def test_other_phases_draw_new_crops(folders: list[Path]) -> None:
    assert not isinstance(at(folders, 2).train_dataloader().dataset, FixedCrops)


@pytest.mark.parametrize("wrong", [{"fixed_crops": 0}, {"fixed_crops": 2, "trains": "all"}])
def test_a_bank_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="'x' has fixed_crops, which"):
        Phase("x", 1, 8, **({"trains": "heads"} | wrong))
