"""Scoring: modes come back as they were, rows in order, single precision."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from iqa_lightning.continual.evaluation import (
    EvaluationCache,
    evaluation_mode,
    on_device,
    predict,
)
from iqa_lightning.datasets.samplers import MAX_PIXELS, SizeSampler
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.finetune import SingleHead
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.bilinear import DBCNN
from tests.methods.steps import (
    ADAM,
    FINETUNE,
    at,
    build,
    columns,
    images,
    learn,
    snapshot,
    start,
)

PART = ("a", "test")


def trainer(precision: str = "32-true") -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return pl.Trainer(accelerator="cpu", devices=1, precision=precision, max_epochs=1, **quiet)


def attached(kind: type = TSNIQA, precision: str = "32-true") -> ContinualMethod:
    """A method that has learnt two tasks, held by a trainer."""
    method = build(kind)
    learn(learn(method, 1), 2)
    method.trainer = trainer(precision)
    return method


def shuffled(whole: Batch, *orders: list[int]) -> list[Batch]:
    return [{"image": whole["image"][order], "index": torch.tensor(order)} for order in orders]


@pytest.mark.parametrize("fails", [False, True])
def test_each_module_gets_its_mode_back(fails: bool) -> None:
    method = build(TSNIQA)
    start(method, 2)
    method.on_phase_start(at(FINETUNE, 2, epoch=1))  # batch norms sleep while all else trains
    method.backbone.network.conv_stem.eval()
    before = [module.training for module in method.modules()]
    assert method.training
    assert not all(before)
    try:
        with evaluation_mode(method):
            assert not any(module.training for module in method.modules())
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert [module.training for module in method.modules()] == before


def test_batch_norms_that_gather_statistics_do_so_again() -> None:
    method = build(SingleHead)
    start(method, 1)
    method.on_phase_start(at(FINETUNE))
    with evaluation_mode(method):
        pass
    assert all(module.training for module in method.modules() if isinstance(module, nn.BatchNorm2d))


def test_rows_stand_in_the_order_of_the_data_set() -> None:
    method, whole = attached(), images(0, 10)
    batches = shuffled(whole, [7, 2, 9], [0, 1, 4, 3], [8, 6, 5])
    found = EvaluationCache().evaluate(method, batches, PART, 1)
    expected = columns(method, whole, 1)
    assert list(found) == list(expected)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6)
        assert values.dtype == np.float32


REAL_SIZES = [
    (500, 500),
    (768, 1024),
    (384, 512),
    (512, 384),
]  # CLIVE, KonIQ-10k, KADID-10k, one upright


@pytest.mark.parametrize(
    ("kind", "backbone"), [(SingleHead, "resnet18"), (TSNIQA, "test_efficientnet")]
)
def test_scores_do_not_depend_on_the_batches(kind: type, backbone: str) -> None:
    """Images of real sizes, mixed: one by one, within a budget that cuts the buckets, and in whole
    buckets.
    """
    method, sizes = build(kind, backbone), np.array(REAL_SIZES[1:3] + REAL_SIZES + REAL_SIZES[:1])
    start(method, 1)
    method.trainer = trainer()
    generator = torch.Generator().manual_seed(0)
    whole = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        for size in sizes.tolist()
    ]

    def scored(max_pixels: int) -> tuple[set[int], dict[str, np.ndarray]]:
        batches = [torch.tensor(rows) for rows in SizeSampler(sizes, max_pixels)]
        shown = (
            {"image": torch.stack([whole[i] for i in rows]), "index": rows} for rows in batches
        )
        return {len(rows) for rows in batches}, EvaluationCache().evaluate(method, shown, PART, 1)

    lengths, alone = scored(1)
    assert lengths == {1}
    for max_pixels in (2 * 500 * 500, MAX_PIXELS):
        lengths, together = scored(max_pixels)
        assert max(lengths) > 1
        for name, scores in alone.items():
            np.testing.assert_allclose(together[name], scores, rtol=1e-5, atol=1e-5)
    assert any(len(np.unique(scores)) == len(sizes) for scores in alone.values()), (
        "scores that tell images apart"
    )


def test_the_owner_reaches_the_step_and_missing_scores_stay_missing() -> None:
    method = attached()
    found = {
        owner: EvaluationCache().evaluate(method, shuffled(images(0), [1, 0]), PART, owner)
        for owner in (1, 2, 3)
    }
    assert np.isnan(found[3]["oracle"]).all()
    for owner, task in ((1, "a"), (2, "b")):
        np.testing.assert_array_equal(found[owner]["oracle"], found[owner][f"score/{task}"])


def test_a_scoring_leaves_no_trace() -> None:
    method = attached()
    method.on_phase_start(at(FINETUNE, 2))  # statistics would move in training mode
    before, modes = snapshot(method), [module.training for module in method.modules()]
    EvaluationCache().evaluate(method, shuffled(images(0), [0, 1, 2]), PART, 1)
    assert all(torch.equal(tensor, before[key]) for key, tensor in method.state_dict().items())
    assert [module.training for module in method.modules()] == modes


class Scoring(pl.Callback):
    """Scores images where the walk does: at the end of an epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.on_phase_start(at(FINETUNE))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def step(batch: Batch) -> dict[str, torch.Tensor]:
            feature = pl_module.backbone(batch["image"])
            self.half = torch.is_autocast_enabled("cpu") or feature.dtype != torch.float32
            return {"score": pl_module.score(batch["image"])}

        self.found = predict(pl_module, shuffled(images(0, 64), list(range(64))), step)


def test_mixed_precision_of_the_training_does_not_reach_the_scores() -> None:
    scoring, walk = Scoring(), trainer("bf16-mixed")
    walk.callbacks.append(scoring)
    method = build(SingleHead)
    method.on_task_start(at(FINETUNE).task, [])
    walk.fit(method, torch.utils.data.DataLoader([images(1), images(2)], batch_size=None))
    assert not scoring.half
    with evaluation_mode(method), torch.no_grad():
        expected = method.score(images(0, 64)["image"])
    np.testing.assert_array_equal(scoring.found["score"], expected.numpy())
    assert len(np.unique(scoring.found["score"])) == 64


def test_batches_are_moved_to_the_device_of_the_method() -> None:
    method = attached(SingleHead)
    (batch,) = on_device(method, shuffled(images(0), [0, 1]))
    assert batch["image"].device == method.device


@pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
@pytest.mark.parametrize(
    ("budget", "passes"), [(10**9, [1, 1, 0, 0]), (4 * 128 * 2 * 2, [1, 1, 0, 1]), (0, [1] * 4)]
)
def test_maps_that_no_training_changes_are_computed_once(budget: int, passes: list[int]) -> None:
    """Two batches, twice: one image of 32x32 has a map of 128 x 2 x 2 floats; what is over the
    budget comes again.
    """
    network = DBCNN(None, name="test_resnet")
    method = SingleHead(backbone=network, tasks=("a",), optimizer=ADAM)
    method.trainer = trainer()
    seen: list[int] = []
    network.scnn.features[0].register_forward_hook(lambda *_: seen.append(1))
    cache, batches, found = EvaluationCache(budget), shuffled(images(0), [0], [1]), []
    for _ in range(2):
        for batch in batches:
            before = len(seen)
            found.append(cache.validate(method, [dict(batch)], PART))
            passes_of = len(seen) - before
            assert passes_of == passes[len(found) - 1]
    np.testing.assert_array_equal(found[:2], found[2:])
    with evaluation_mode(method), torch.no_grad():
        np.testing.assert_allclose(
            found[0], method.score(images(0)["image"][:1]).numpy(), rtol=0, atol=1e-6
        )
    assert cache.nbytes <= budget
