"""Distillation of preferences: its value by hand, its minimum, who gets a gradient."""

from math import erf, sqrt

import pytest
import torch

from iqa_lightning.losses.distillation import distillation_loss

PAIRS = torch.tensor([[0, 1], [2, 0]])


def phi(x: float) -> float:
    return 0.5 * (1 + erf(x / sqrt(2)))


def test_by_hand() -> None:
    student, teacher = [0.5, -0.2, 0.1], [0.3, 0.4, -0.6]
    terms = []
    for i, j in PAIRS.tolist():
        p, g = phi(student[i] - student[j]), phi(teacher[i] - teacher[j])
        terms.append(1 - sqrt(p * g + 1e-8) - sqrt((1 - p) * (1 - g) + 1e-8))
    found = distillation_loss(torch.tensor(student), torch.tensor(teacher), PAIRS)
    assert found.item() == pytest.approx(sum(terms) / 2, abs=1e-6)


def test_least_where_both_agree_and_a_shift_does_not_matter() -> None:
    teacher = torch.tensor([0.3, 0.4, -0.6])
    student = (teacher + 7).requires_grad_()
    loss = distillation_loss(student, teacher, PAIRS)
    (gradient,) = torch.autograd.grad(loss, student)
    assert abs(loss.item()) < 1e-6
    assert gradient.abs().max() < 1e-5
    assert distillation_loss(-teacher, teacher, PAIRS) > 0.01


def test_only_the_student_learns_and_no_pair_is_no_loss() -> None:
    student, teacher = (torch.randn(3, requires_grad=True) for _ in range(2))
    distillation_loss(student, teacher, PAIRS).backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert distillation_loss(student, teacher, PAIRS[:0]).item() == 0
