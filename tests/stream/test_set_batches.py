"""One mini-batch of every data set in each step."""

import numpy as np
import pytest

from iqa_lightning.stream.pairs import SetBatches, pair_target

NAMES = ("live", "csiq", "bid", "clive", "koniq10k", "kadid10k")
SIZES = (538, 607, 410, 813, 7051, 7125)  # split 1
GOLDEN = {
    "live": 4,
    "csiq": 4,
    "bid": 4,
    "clive": 4,
    "koniq10k": 16,
    "kadid10k": 16,
}  # specs/golden.json


def test_the_paper_s_batches() -> None:
    pairs = SetBatches(by_set={"koniq10k": 16, "kadid10k": 16})
    batches = pairs.draw(SIZES, NAMES, 0, 48)(np.random.default_rng(0))
    ends = np.cumsum((0, *SIZES))
    assert len(batches) == 200
    for batch in batches:
        assert batch.shape == (48, 1)
        source = np.searchsorted(ends, batch[:, 0], side="right") - 1
        assert {NAMES[k]: int(n) for k, n in enumerate(np.bincount(source))} == GOLDEN
        assert len(set(batch[:, 0].tolist())) == 48, "no image twice in a step"
    shown = np.concatenate(batches)[:, 0]
    assert len(set(shown[(shown >= ends[4]) & (shown < ends[5])].tolist())) == 3200, (
        "a fresh part of a large set"
    )
    times = np.bincount(shown[shown < 538], minlength=538)
    assert times.sum() == 800
    assert times.max() == 2, "a short set is gone through again"
    assert (times == 0).sum() <= 2, "two images fill no mini-batch in a pass"


def test_what_fills_no_mini_batch_is_left_out() -> None:
    """13 images in fours: three a pass, never a single one, which would have no pair."""
    batches = SetBatches(steps=7, images=4).draw([13], ["a"], 0, 8)(np.random.default_rng(3))
    for first in (0, 3):
        assert len(set(np.concatenate(batches[first : first + 3])[:, 0].tolist())) == 12
    tiny = SetBatches(steps=2, images=4).draw([3], ["a"], 0, 8)(np.random.default_rng(3))
    assert [len(batch) for batch in tiny] == [3, 3]


def test_two_sets_are_not_paired() -> None:
    import torch

    found = SetBatches().positions(torch.tensor([0, 0, 0, 2, 2]))
    assert found.tolist() == [[0, 1], [0, 2], [1, 2], [3, 4]]


def test_ties_are_half() -> None:
    import torch

    mos = torch.tensor([[2.0, 1.0], [1.0, 2.0], [1.0, 1.0]])
    assert pair_target(mos, torch.zeros(3, 2), SetBatches().target).tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("options", "name"),
    [({"images": 1}, "images"), ({"by_set": {"a": 1}}, "a"), ({"steps": 0}, "steps")],
)
def test_what_is_refused(options: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=f"pairs: {name} is too small"):
        SetBatches(**options)  # type: ignore[arg-type]
