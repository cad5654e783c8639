"""What all methods share: phases, learning rates, readouts, features of a whole task."""

import pytest
import torch
from omegaconf import OmegaConf

from iqa_lightning.distributed import from_all_ranks
from iqa_lightning.losses.fidelity import preference
from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.methods.finetune import MultiHead, SingleHead
from iqa_lightning.methods.readouts import HeadScores, read_out
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.stream.schedule import Phase
from tests.methods.steps import FINETUNE, WARMUP, at, build, images, snapshot, start
from tests.walks import ROOT, composed


def test_unknown_batch_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bn_stats='second_epoch'.*first_epoch"):
        build(SingleHead, bn_stats="second_epoch")


def test_readouts_by_hand() -> None:
    scores = torch.tensor([[0.1, 0.5], [0.2, 0.6], [0.3, 0.7]])
    gate = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]])
    found = read_out(HeadScores(scores, gate), torch.tensor([1, 2, 3]), task=2)
    assert found["single"].tolist() == found["latest"].tolist() == scores[:, 1].tolist()
    torch.testing.assert_close(found["oracle"], torch.tensor([0.1, 0.6, torch.nan]), equal_nan=True)
    torch.testing.assert_close(found["gated"], torch.tensor([0.1, 0.4, 0.6]))
    assert "gated" not in read_out(HeadScores(scores), torch.tensor([1, 2, 3]), task=2)


def test_before_the_first_task_no_head_is_an_oracle() -> None:
    found = read_out(HeadScores(torch.zeros(2, 1)), torch.tensor([1, 2]), task=0)
    assert found["oracle"].isnan().all()
    assert found["latest"].tolist() == [0, 0]


def test_golden_learning_rates_reach_the_optimiser() -> None:
    phases = OmegaConf.load(ROOT / "conf" / "schedule" / "tsn_paper.yaml")
    lr = composed("method=tsn_iqa").method.optimizer.lr
    method = build(
        TSNIQA, optimizer=lambda groups: torch.optim.Adam(groups, lr=lr), head_lr_factor=3.0
    )
    start(method, 1)
    body, heads = method.trainer.optimizers[0].param_groups
    found = []
    for name, phase in phases.items():
        for epoch in range(phase.epochs):
            for _ in range(2):  # a second call changes nothing
                method.on_phase_start(at(Phase(name=name, **phase), epoch=epoch))
            found.append(body["lr"])
            assert heads["lr"] == pytest.approx(3 * body["lr"])
    assert found == pytest.approx([2e-4] * 4 + [2e-5] * 4 + [2e-6] * 4, rel=1e-9)


def test_a_cosine_starts_over_with_each_phase() -> None:
    method = build(SingleHead)
    start(method, 1)
    found = []
    for phase in (
        Phase("one", 2, 8, decay="cosine"),
        Phase("two", 2, 8, lr_factor=0.1, decay="cosine"),
    ):
        for epoch in range(2):
            method.on_phase_start(at(phase, epoch=epoch))
            found.append(method.trainer.optimizers[0].param_groups[0]["lr"])
    assert found == pytest.approx([0.01, 0.005, 0.001, 0.0005])


@pytest.mark.parametrize("link", ["phi", "phi_unit"])
def test_the_training_step_is_the_mean_fidelity_loss(link: str) -> None:
    method, batch = build(SingleHead, link=link).eval(), images(0)
    logged = {}
    method.log = lambda name, value, **_: logged.update({name: value})
    loss = method.training_step(batch, 0)
    scores = method.score(batch["image"])
    terms = []
    for (i, j), y in zip(batch["pairs"].tolist(), batch["target"].tolist(), strict=True):
        p = preference(scores[i] - scores[j], link)
        terms.append(1 - (p * y + 1e-8).sqrt() - ((1 - p) * (1 - y) + 1e-8).sqrt())
    torch.testing.assert_close(loss, torch.stack(terms).mean())
    assert logged == {"train/loss": loss}


@pytest.mark.parametrize("kind", [SingleHead, MultiHead, TSNIQA])
def test_hooks_do_not_allocate(kind: type) -> None:
    method = build(kind)
    before = {key: tensor.shape for key, tensor in snapshot(method).items()}
    for t in (1, 2, 3):
        start(method, t)
        method.on_phase_start(at(FINETUNE, t))
    assert {key: tensor.shape for key, tensor in snapshot(method).items()} == before


@pytest.mark.parametrize("kind", [SingleHead, MultiHead, TSNIQA])
def test_the_optimiser_holds_what_the_task_trains(kind: type) -> None:
    method = build(kind)
    for t in (1, 2):
        start(method, t)
        method.on_phase_start(at(WARMUP, t))
        method.on_phase_start(at(FINETUNE, t))
        groups = method.trainer.optimizers[0].param_groups
        assert [id(p) for p in groups[0]["params"]] == [id(p) for p in method.body_parameters()]
        assert [id(p) for p in groups[1]["params"]] == [id(p) for p in method.head_parameters()]
        assert all(p.requires_grad for group in groups for p in group["params"])


def test_collected_features_stand_in_the_order_of_the_data_set() -> None:
    method, whole = build(SingleHead), images(0, 10)
    orders = [[7, 2, 9], [0, 1, 4, 3], [8, 6, 5]]
    batches = [{"image": whole["image"][order], "index": torch.tensor(order)} for order in orders]
    (found,) = method.collect(batches, lambda image: [image.float().mean(dim=(2, 3))])
    assert torch.equal(found, whole["image"].float().mean(dim=(2, 3)))


def test_a_single_process_gathers_from_itself() -> None:
    assert from_all_ranks({"a": 1}) == [{"a": 1}]


# --- what is missing is told in one line


class Nothing(ContinualMethod):
    """Has a score alone."""

    def score(self, image: torch.Tensor) -> torch.Tensor:
        return image.float().mean(dim=(1, 2, 3))


class Deaf(SingleHead):
    """Its constructor hears of no other option."""

    def __init__(self, backbone: object, tasks: object) -> None:
        super().__init__(backbone=backbone, tasks=tasks)


class Forgetful(SingleHead):
    """Takes an optimiser and keeps it to itself."""

    def __init__(self, optimizer: object, **options: object) -> None:
        super().__init__(**options)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            Nothing,
            r"^method Nothing lacks: readouts, body_parameters, head_parameters, head_scores "
            r"\(see docs/how-to/add-a-method.md\)$",
        ),
        (Deaf, r"^method Deaf takes no optimizer: end its constructor with \*\*options.*$"),
        (Forgetful, r"^method Forgetful has no optimizer: .*super\(\).__init__\(\*\*options\)$"),
    ],
)
def test_what_a_method_lacks(kind: type[ContinualMethod], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(kind)


@pytest.mark.parametrize("given", [None, {"lr": 1e-3}])
def test_a_config_without_an_optimiser_is_told_so(given: object) -> None:
    with pytest.raises(ValueError, match=r"its config needs one, as in optimizer: \{_target_"):
        build(SingleHead, optimizer=given)
