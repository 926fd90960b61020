"""Deformable convolution (Dai et al. 2017) and its modulated form (Zhu et al. 2019), on torchvision's operator.

torchvision orders offsets as mmcv does: for every group of channels and every kernel position y, then x. It has no
half precision everywhere, so the work is done in float32.
"""
import torch
from torch import Tensor
from torch.nn.functional import pad

from .common import check_devices, wide

MAX_COLUMNS = 2 ** 26  # elements of the unfolded features at a time; images beyond that go one by one


@torch.no_grad()
def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
                        kW: int, kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int, dilationH: int,
                        group: int, deformable_group: int, im2col_step: int) -> None:
    """Deformable convolution without a bias.

    Args:
        input: (N, C, H, W).
        weight: (O, C / group, kH, kW).
        offset: (N, deformable_group * kH * kW * 2, H', W'), how far each sample moves in y and x, in pixels.
        output: (N, O, H', W'), receives the result.
        columns, ones, im2col_step: scratch of the compiled operator; not needed here.
        dW, dH: stride.
    """
    check_devices('deform_conv_forward', input=input, weight=weight, offset=offset, output=output)
    options = dH, dW, padH, padW, dilationH, dilationW, group, deformable_group
    _forward(input, weight, offset, None, None, output, options)


@torch.no_grad()
def deform_conv_backward_input(input: Tensor, offset: Tensor, gradOutput: Tensor, gradInput: Tensor,
                               gradOffset: Tensor, weight: Tensor, columns: Tensor, kW: int, kH: int, dW: int,
                               dH: int, padW: int, padH: int, dilationW: int, dilationH: int, group: int,
                               deformable_group: int, im2col_step: int) -> None:
    """Adds the gradients of the input and the offsets to ``gradInput`` and ``gradOffset``.

    The gradient of the weight is a by-product: ``columns``, which mmcv hands to the operator for it next, keeps it.
    """
    options = dH, dW, padH, padW, dilationH, dilationW, group, deformable_group
    by_input, by_weight, by_offset, _, _ = _backward(gradOutput, input, weight, offset, None, options)
    gradInput.add_(by_input)
    gradOffset.add_(by_offset)
    columns.resize_(weight.shape).copy_(by_weight)


@torch.no_grad()
def deform_conv_backward_parameters(input: Tensor, offset: Tensor, gradOutput: Tensor, gradWeight: Tensor,
                                    columns: Tensor, ones: Tensor, kW: int, kH: int, dW: int, dH: int, padW: int,
                                    padH: int, dilationW: int, dilationH: int, group: int, deformable_group: int,
                                    scale: float, im2col_step: int) -> None:
    """Adds ``scale`` times the gradient of the weight to ``gradWeight``."""
    if columns.shape == gradWeight.shape:
        by_weight = columns.clone()
        columns.resize_(0)
    else:
        options = dH, dW, padH, padW, dilationH, dilationW, group, deformable_group
        by_weight = _backward(gradOutput, input, torch.zeros_like(gradWeight), offset, None, options)[1]
    gradWeight.add_(by_weight, alpha=scale)


@torch.no_grad()
def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                  mask: Tensor, output: Tensor, columns: Tensor, kernel_h: int, kernel_w: int,
                                  stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int,
                                  dilation_w: int, group: int, deformable_group: int, with_bias: bool) -> None:
    """Deformable convolution whose samples are weighted; other arguments as of :func:`deform_conv_forward`.

    Args:
        bias: (O,), used ``with_bias``.
        mask: (N, deformable_group * kH * kW, H', W'), weight of each sample.

    Offsets and masks may be those of a larger map, as DyHead's are. As mmcv's, whose kernels know the size of the
    result only, it then takes the first numbers of each image in memory.
    """
    check_devices('modulated_deform_conv_forward', input=input, weight=weight, offset=offset, mask=mask, output=output)
    options = stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
    offset, mask = (_as_read(maps, output.shape[2:]) for maps in (offset, mask))
    _forward(input, weight, offset, mask, bias if with_bias else None, output, options)


@torch.no_grad()
def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                   mask: Tensor, columns: Tensor, grad_input: Tensor, grad_weight: Tensor,
                                   grad_bias: Tensor, grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int,
                                   pad_w: int, dilation_h: int, dilation_w: int, group: int, deformable_group: int,
                                   with_bias: bool) -> None:
    """Adds the gradients of all five to ``grad_*``; arguments as above."""
    options = stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
    offset, mask = (_as_read(maps, grad_output.shape[2:]) for maps in (offset, mask))
    by_input, by_weight, by_offset, by_mask, by_bias = _backward(grad_output, input, weight, offset, mask, options)
    grad_input.add_(by_input)
    grad_weight.add_(by_weight)
    for total, gradient in ((grad_offset, by_offset), (grad_mask, by_mask)):
        rest = total[:1].numel() - gradient[:1].numel()  # of a larger map's numbers, those that were not read
        total.add_(pad(gradient.flatten(1), (0, rest)).view(total.shape))
    if with_bias:
        grad_bias.add_(by_bias)


def _as_read(maps: Tensor, size: torch.Size) -> Tensor:
    """(N, C, *size) of the first numbers of each image's (C, H, W), which are all of them where the sizes agree."""
    needed = maps.shape[1] * size.numel()
    if maps.shape[2:].numel() < size.numel():
        raise ValueError(f'modulated_deform_conv: offsets and masks of {tuple(maps.shape[2:])} positions are too '
                         f'few for a result of {tuple(size)}')
    return maps.flatten(1)[:, :needed].unflatten(1, (maps.shape[1], *size))


def _forward(input, weight, offset, mask, bias, output, options) -> None:
    import torchvision.ops  # noqa: F401  (registers the operator)
    dtype = wide(input)
    weight = weight.to(dtype)
    bias = weight.new_zeros(len(weight)) if bias is None else bias.to(dtype)
    for images in _portions(input, weight, output):
        masks = _masks(mask, input, images)
        output[images] = torch.ops.torchvision.deform_conv2d(
            input[images].to(dtype), weight, offset[images].to(dtype), masks, bias, *options, mask is not None)


def _backward(grad_output, input, weight, offset, mask, options) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset, mask (empty without one) and bias."""
    import torchvision.ops  # noqa: F401  (registers the operator)
    dtype = wide(input)
    weight = weight.to(dtype)
    bias = weight.new_zeros(len(weight))
    by_input, by_offset = torch.zeros_like(input, dtype=dtype), torch.zeros_like(offset, dtype=dtype)
    by_mask = weight.new_zeros(0) if mask is None else torch.zeros_like(mask, dtype=dtype)
    by_weight, by_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    for images in _portions(input, weight, grad_output):
        masks = _masks(mask, input, images)
        found = torch.ops.torchvision._deform_conv2d_backward(
            grad_output[images].to(dtype), input[images].to(dtype), weight, offset[images].to(dtype), masks, bias,
            *options, mask is not None)
        by_input[images], by_offset[images] = found[0], found[2]
        by_weight += found[1]
        by_bias += found[4]
        if mask is not None:
            by_mask[images] = found[3]
    return by_input, by_weight, by_offset.masked_fill_(_beyond(input, weight, offset, options), 0), by_mask, by_bias


def _masks(mask: Tensor | None, input: Tensor, images: slice) -> Tensor:
    """The images' masks; without any, what torchvision wants in their place."""
    if mask is None:
        return input.new_zeros(len(input[images]), 1, dtype=wide(input))
    return mask[images].to(wide(input))


def _portions(input: Tensor, weight: Tensor, output: Tensor) -> list[slice]:
    """Images to work on at a time."""
    columns = input.shape[1] * weight[0, 0].numel() * output[0, 0].numel() if len(input) else 1
    step = max(1, MAX_COLUMNS // columns)
    return [slice(first, first + step) for first in range(0, len(input), step)]


def _beyond(input: Tensor, weight: Tensor, offset: Tensor, options: tuple[int, ...]) -> Tensor:
    """Where a sample lies a pixel or more outside, as the shape of ``offset``: there mmcv has no gradient.

    torchvision has one at exactly -1, which is where zero offsets put the samples in the padding.
    """
    shape = (len(offset), options[7], weight.shape[2] * weight.shape[3], 2, *offset.shape[2:])
    places = offset.reshape(shape)
    outside = torch.zeros_like(places[:, :, :, 0], dtype=torch.bool)
    for axis, (stride, border, dilation) in enumerate(zip(options[:2], options[2:4], options[4:6], strict=True)):
        cells = torch.arange(offset.shape[2 + axis], device=offset.device) * stride - border
        kernel = torch.arange(weight.shape[2 + axis], device=offset.device) * dilation
        kernel = kernel.repeat_interleave(weight.shape[3]) if axis == 0 else kernel.repeat(weight.shape[2])
        base = kernel[:, None, None] + (cells[:, None] if axis == 0 else cells[None, :])
        at = places[:, :, :, axis].to(wide(offset)) + base
        outside |= (at <= -1) | (at >= input.shape[2 + axis])
    return outside[:, :, :, None].expand(shape).reshape(offset.shape)
