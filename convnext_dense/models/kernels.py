"""Linear, depthwise convolution and GELU as the blocks need them on the CPU: standard results, less work.

Two standard operators are slow on the CPU. ``F.linear`` in float32 copies the bias over the whole output and
lets MKL accumulate into it; oneDNN, which every build of PyTorch for the CPU carries, takes product and bias in
one pass and, where the CPU has AVX-512, is faster on the tall, narrow products of the early stages (with AVX2 alone
it was slower, so MKL stays). The weight gradient of a depthwise
convolution runs in oneDNN as a grouped one padded to 16 channels per group, 16 times the work; it is also a
forward depthwise convolution of the input with the output's gradient, and there none of it is padding.
Everywhere else (GPU, export, tracing, for linear layers half precision) these are the standard ones.
"""
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

# before torch 2.6 the two cannot be told apart; standard operators are then used under torch.compile, too
is_exporting = getattr(torch.compiler, 'is_exporting', torch.compiler.is_compiling)
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')
HAS_FAST_PRODUCT = HAS_ONEDNN and torch.backends.cpu.get_cpu_capability() == 'AVX512'


class Linear(nn.Linear):
    """nn.Linear, through oneDNN where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``, through oneDNN for float32 on CPUs where that is faster."""
    if not use_onednn(x, weight):
        return F.linear(x, weight, bias)
    return onednn_linear(x, weight, bias)


def use_fast_linear(module: nn.Module) -> None:
    """Make every plain nn.Linear in a module a `Linear`, in place; its parameters and their names stay."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear  # which differs in nothing but ``forward``


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with stride 1 and output of the input's size.

    Args:
        channels: in and out.
        kernel_size: odd.
    """

    def __init__(self, channels: int, kernel_size: int):
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        if not (HAS_ONEDNN and x.device.type == 'cpu' and self.weight.requires_grad and torch.is_grad_enabled()
                and x.dtype != torch.float64 and not exporting()):
            return super().forward(x)
        dtype = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else x.dtype
        return OneDnnDepthwise.apply(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


def gelu(x: Tensor) -> Tensor:
    """Exact GELU, in place where no gradient is needed: nothing else may use ``x``."""
    return F.gelu(x) if torch.is_grad_enabled() or exporting() else torch.ops.aten.gelu_(x)


def use_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's product applies; exporters and tracers get the standard operator, which they know."""
    return (HAS_FAST_PRODUCT and x.device.type == 'cpu' and x.dtype == weight.dtype == torch.float32
            and not torch.is_autocast_enabled('cpu') and not exporting())


def exporting() -> bool:
    """Whether torch.export or the JIT tracer is looking: they should see standard operators only."""
    return is_exporting() or torch.jit.is_tracing()


# Operators of our own, so that torch.compile takes them as they are: its lowering of oneDNN's product wants
# weights that never change, and it would unroll the strips below.
@torch.library.custom_op('convnext_dense::linear', mutates_args=(),
                         schema='(Tensor x, Tensor weight, Tensor? bias) -> Tensor')
def onednn_linear(x, weight, bias):
    """``F.linear`` in one pass."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')


@onednn_linear.register_fake
def linear_shape(x, weight, bias):
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def save_linear(ctx, inputs, output) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def linear_backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    rows = grad.flatten(0, -2)
    grad_x = linear(grad, weight.t()) if ctx.needs_input_grad[0] else None
    grad_weight = rows.t() @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
    grad_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
    return grad_x, grad_weight, grad_bias


onednn_linear.register_autograd(linear_backward, setup_context=save_linear)


@register_flop_formula(torch.ops.convnext_dense.linear)
def linear_flops(x_shape, weight_shape, *args, **kwargs) -> int:
    """So that torch's FlopCounterMode counts the product as it counts ``F.linear``."""
    return 2 * prod(x_shape[:-1]) * prod(weight_shape)


class OneDnnDepthwise(torch.autograd.Function):
    """Depthwise convolution, stride 1, size kept, whose backward pass is made of forward convolutions."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = F.conv2d(grad, weight.flip(2, 3), padding=weight.shape[-1] // 2, groups=len(weight))
        if ctx.needs_input_grad[1]:
            grad_weight = depthwise_weight_grad(x.float(), grad.float(), weight.shape[-1]).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias


@torch.library.custom_op('convnext_dense::depthwise_weight_grad', mutates_args=())
def depthwise_weight_grad(x: Tensor, grad: Tensor, kernel_size: int) -> Tensor:
    """Gradient (C, 1, k, k) of the weight, from input and output gradient, both (N, C, H, W).

    It is the correlation of the two tensors at k x k shifts: a depthwise convolution with the gradient as its
    kernel. Strips of 16 rows keep that kernel in cache and the float32 sums short; half precision is summed in
    float32 too.
    """
    pad = kernel_size // 2
    x = F.pad(x, (0, 0, pad, pad))
    total = grad.new_zeros(1, grad.shape[1], kernel_size, kernel_size)
    for sample, sample_grad in zip(x.split(1), grad.unbind(), strict=True):
        for top in range(0, grad.shape[2], 16):
            kernel = sample_grad[:, None, top:top + 16]
            strip = sample[:, :, top:top + kernel.shape[2] + 2 * pad]
            total += F.conv2d(strip, kernel, padding=(0, pad), groups=len(kernel))
    return total.transpose(0, 1).contiguous()


@depthwise_weight_grad.register_fake
def weight_grad_shape(x, grad, kernel_size):
    return grad.new_empty(grad.shape[1], 1, kernel_size, kernel_size)
