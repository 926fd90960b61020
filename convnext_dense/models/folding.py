"""Folding a trained network's constant factors and offsets into the weights next to them.

Of a block remain depthwise convolution, normalisation, linear, GELU, (GRN's scale,) linear and sum.
"""
from copy import deepcopy

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .convnext import Block
from .layers import LayerNorm2d


def fold_for_inference(model: nn.Module) -> nn.Module:
    """A copy of a network or of a whole detector or segmentor, for inference only, with the same results.

    Folded are layer scale and GRN's offset into the second pointwise layer, the block norm's scale and offset
    into the first, and those of the norm before a downsampling convolution into it; in neck and heads, batch norms into
    the convolutions before them. Results agree to float tolerance. The copy is in eval mode, needs no gradients and has
    another state dict than the original.

    Args:
        model: any module with `Block` of this package inside; output norms are kept.

    Raises:
        ValueError: there is no such block, or it is folded already.
    """
    model = deepcopy(model).eval().requires_grad_(False)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    if not any(block.norm.weight is not None for block in blocks):
        found = f'{type(model).__name__} has ' + ('folded ones only' if blocks else 'none')
        raise ValueError(f'fold_for_inference needs a model with ConvNeXt blocks, and {found}')
    for block in blocks:
        fold_block(block)
    for module in model.modules():
        if isinstance(module, nn.Sequential) and len(module) == 2:
            norm, conv = module
            # without padding every output sees the offset through the whole kernel
            if isinstance(norm, LayerNorm2d) and isinstance(conv, nn.Conv2d) and conv.padding == (0, 0):
                fold_norm(norm, conv)
        fold_batch_norm(module)
    return model


def fold_block(block: Block) -> None:
    """Fold a block in place."""
    fold_norm(block.norm, block.pwconv1)
    linear = block.pwconv2
    if block.grn is not None:
        linear.bias = frozen(linear.bias + linear.weight @ block.grn.beta.flatten())
        block.grn.beta = None
    if block.gamma is not None:
        linear.weight = frozen(linear.weight * block.gamma[:, None])
        linear.bias = frozen(linear.bias * block.gamma)
        block.gamma = None


def fold_batch_norm(module: nn.Module) -> None:
    """Fold the batch norm of a module that is built as mmcv's ConvModule into its convolution, in place.

    A ConvModule has ``conv``, a norm under its ``norm_name``, and ``order``, in which it applies them.
    """
    conv, norm = getattr(module, 'conv', None), getattr(module, getattr(module, 'norm_name', None) or '', None)
    if (not isinstance(conv, nn.Conv2d) or not isinstance(norm, _BatchNorm) or norm.running_mean is None
            or tuple(module.order[:2]) != ('conv', 'norm')):
        return
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    offset = 0 if norm.bias is None else norm.bias
    bias = 0 if conv.bias is None else conv.bias
    conv.bias = frozen(offset + (bias - norm.running_mean) * scale)
    conv.weight = frozen(conv.weight * scale[:, None, None, None])
    setattr(module, module.norm_name, nn.Identity())
    module.efficient_conv_bn_eval_forward = None


def fold_norm(norm: nn.LayerNorm, after: nn.Linear | nn.Conv2d) -> None:
    """Move a norm's scale and offset into the layer after it, whose inputs are dimension 1 of its weight."""
    weight = after.weight
    shape = (1, -1, *([1] * (weight.dim() - 2)))
    after.bias = frozen(after.bias + (weight * norm.bias.view(shape)).flatten(1).sum(1))
    after.weight = frozen(weight * norm.weight.view(shape))
    norm.weight = norm.bias = None


def frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


__all__ = ['fold_for_inference']
