"""Convolutions that are never trained keep less for the way back.

PyTorch's own keeps its input whenever a gradient passes, though only the gradient of the weight
needs it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _FixedWeight(torch.autograd.Function):
    """A convolution whose gradient by its input is all that is asked for: the same kernels, the
    same bits.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: tuple[Any, ...]
    ) -> Tensor:
        """The convolution; keeps the shape of its input."""
        ctx.save_for_backward(weight)
        ctx.like, ctx.settings = x.new_empty(1).expand(x.shape), settings
        return F.conv2d(x, weight, bias, *settings)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient by the input."""
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        needed = [True, False, False]
        found = torch.ops.aten.convolution_backward(
            gradients[0],
            ctx.like,
            weight,
            None,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            needed,
        )
        return found[0], None, None, None


class FrozenConv2d(nn.Conv2d):
    """`nn.Conv2d` that does not keep its input while its parameters need no gradient; the numbers
    are the same.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        # mixed precision casts inside the convolution, so that the kernels of the way back would
        # differ; a compiler sees by itself what need not be kept
        plain = torch.compiler.is_compiling() or torch.is_autocast_enabled(input.device.type)
        if trained or plain or not input.requires_grad:
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        settings = self.stride, self.padding, self.dilation, self.groups
        found: Tensor = _FixedWeight.apply(input, weight, bias, settings)
        return found


def freeze_convolutions(network: nn.Module) -> None:
    """No convolution of the network is trained any more, nor keeps what only that would need.

    Those that pad in a way of their own (`same` of TensorFlow's networks, where the stride is 2)
    stay as they are.
    """
    for module in network.modules():
        if (
            type(module) is nn.Conv2d
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            module.requires_grad_(False)
            module.__class__ = (
                FrozenConv2d  # the module stays itself: its name, its parameters, its hooks
            )
