"""A teacher is what the student was, learns nothing, and shares what training does not change."""

import pytest
import torch

from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.bilinear import DBCNN
from iqa_lightning.models.heads import CosineHeads
from tests.methods.steps import images


def student() -> tuple[Backbone, CosineHeads]:
    torch.manual_seed(0)
    network = Backbone("test_resnet", None)
    return network, CosineHeads(network.width, 2)


def moved(module: torch.nn.Module) -> None:
    """Other weights and statistics."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1)


def test_it_says_what_the_student_said_when_it_was_taken() -> None:
    network, heads = student()
    teacher = Teacher(network, heads).eval()
    image = images(0)["image"]
    moved(network), moved(heads)
    teacher.take(network, heads)
    with torch.no_grad():
        feature = network.eval()(image)
    weight = heads.weight[1].detach().clone()
    moved(network), moved(heads)
    assert torch.equal(teacher(image), feature)
    assert torch.equal(teacher.heads.weight[1].detach(), weight)
    assert not torch.equal(network(image), feature)


def test_nothing_trains_it() -> None:
    network, heads = student()
    teacher = Teacher(network, heads)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher(images(0)["image"]).requires_grad
    held = {name for name, _ in teacher.named_buffers()}
    own = {f"backbone.{name}" for name, _ in network.named_buffers()}
    assert held == own, "no buffers but the running statistics"


@pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
def test_it_shares_what_no_training_changes() -> None:
    torch.manual_seed(0)
    network = DBCNN(None, name="test_resnet")
    teacher, image = Teacher(network).eval(), images(0)["image"]
    assert teacher.backbone.scnn is network.scnn
    torch.testing.assert_close(teacher(image), teacher(image, network.frozen_output(image)))
