"""`check plan=true`: what a run will take, from counted images and a measured rate."""

from pathlib import Path

import pytest
import torch

from iqa_lightning.check import plan
from iqa_lightning.runs.building import build_stream
from iqa_lightning.runs.forecast import activations, clock, count_images, size
from tests.walks import IN_BATCH, TINY, composed, stream_of_folders


def test_counts_by_hand(folders: list[Path]) -> None:
    """Two sets of 40 images, 28 + 4 + 8; one epoch of heads, two of all."""
    words = [*TINY, IN_BATCH, "method=sh_cl", *stream_of_folders(folders)]
    cfg = composed(*words, "schedule.warmup.epochs=1", "schedule.finetune.epochs=2")
    stream = build_stream(cfg)
    counts = count_images(stream)
    sizes = {name: [len(part) for part in data.parts] for name, data in stream.data.items()}
    train, val, test = (sum(parts[k] for parts in sizes.values()) for k in range(3))
    assert counts.images == train + val + test == 80
    assert counts.trained == {"heads": train, "all": 2 * train}
    assert counts.scored == 3 * (val + test) + 3 * val + train
    assert counts.cache_bytes == 3 * 36 * sum(40 + 4 * (i % 2) for i in range(40)) * 2


def test_activations_of_a_product() -> None:
    a, b = torch.ones(10, 20, requires_grad=True), torch.ones(20, 30, requires_grad=True)
    assert activations(lambda: a @ b) == 4 * (10 * 20 + 20 * 30)


def test_words() -> None:
    assert (clock(9600), clock(170), clock(20)) == ("2 h 40", "3 min", "20 s")
    assert (size(34.2e9), size(5.1e6)) == ("34.2 GB", "5.1 MB")


def test_the_command(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan=true", "backbone=tiny", "method=lwf", "schedule=lwf_paper", "pairs=paper"]
    small = ["view=paper", "view.crop=32", "pairs.count=20", "~pairs.counts"]
    plan(composed(*words, *small, *stream_of_folders(folders), config="check"))
    said = capsys.readouterr().out
    for word in ("images      80", "cache of decoded images", "memory", "images a second", "time"):
        assert word in said
    with pytest.raises(ValueError, match="method is not given"):
        plan(composed("plan=true", "stream=demo", config="check"))


def test_an_experiment_is_planned_as_it_is_trained() -> None:
    one = composed("plan=true", "experiment=zhang2022/lwf", config="check")
    other = composed("experiment=zhang2022/lwf")
    for key in ("stream", "method", "backbone", "schedule", "view", "pairs"):
        assert one[key] == other[key]
