"""mmcv's operators on torchvision and numpy, for an mmcv without compiled ones.

mmcv keeps its compiled operators in one extension module, ``mmcv._ext``. mmcv-lite, and onedl-mmcv as it comes
from a package index, lack it, and ``import mmcv.ops`` then fails. :func:`install` puts a module of that name in
place: nms, softnms, roi_align_forward and roi_align_backward have the signatures and the results of the compiled
ones, every other operator raises when it is called. Compiled operators are never replaced.

Among tied scores, nms prefers the box that comes first in the input; the compiled one makes no promise. softnms
breaks ties as the compiled one does. tools/check_ops.py compares with compiled operators; docs/operators.md has
the figures.
"""
import importlib.util
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2  # mmcv/ops/nms.py, soft_nms: method_dict
MAX, AVG = 0, 1  # mmcv/ops/roi_align.py: pool_mode
# A bin's maximum starts here in mmcv's CPU kernel (csrc/pytorch/cpu/roi_align.cpp): an empty bin has this value.
MAX_STARTS_AT = -10000.
NOT_OPERATORS = ('get_compiler_version', 'get_compiling_cuda_version')  # what else mmcv asks of mmcv._ext


def compiled() -> bool:
    """Whether the installed mmcv brings compiled operators (False where there is no mmcv); imports nothing."""
    folders = _mmcv_folders()
    return bool(folders) and PathFinder.find_spec('mmcv._ext', folders) is not None


def install() -> None:
    """Let ``mmcv.ops`` import where mmcv is installed without compiled operators; safe to call more than once.

    Must run before mmcv.ops is imported. Does nothing without mmcv or with compiled operators.
    """
    if _mmcv_folders() and not compiled():
        sys.modules.setdefault('mmcv._ext', _StandIn())


def in_use() -> dict[str, str]:
    """Every operator that the installed mmcv knows -> 'compiled', 'torchvision' (this module's) or 'unavailable'.

    Empty where mmcv is not installed.
    """
    names = set()
    for folder in _mmcv_folders():
        for source in sorted(Path(folder, 'ops').glob('*.py')):
            for listed in re.findall(r"load_ext\(\s*'_ext',\s*\[(.*?)\]", source.read_text('utf-8'), re.DOTALL):
                names.update(re.findall(r"'(\w+)'", listed))
    if compiled():
        return {name: 'compiled' for name in sorted(names - set(NOT_OPERATORS))}
    return {name: 'torchvision' if name in OPERATORS else 'unavailable'
            for name in sorted(names - set(NOT_OPERATORS))}


def _mmcv_folders() -> list[str]:
    """Folders of the installed mmcv, found without importing it; empty where there is none."""
    spec = importlib.util.find_spec('mmcv')
    return list(spec.submodule_search_locations or ()) if spec else []


class _StandIn(ModuleType):
    """``mmcv._ext`` without a compiler: our operators, and for any other name a function that raises."""

    def __init__(self):
        super().__init__('mmcv._ext', __doc__)
        # mmengine looks the module up by its spec; no loader there means "not the full mmcv", which is true.
        self.__spec__ = ModuleSpec('mmcv._ext', loader=None)
        vars(self).update(OPERATORS, **{name: lambda: 'n/a' for name in NOT_OPERATORS})

    def __getattr__(self, name: str):
        if name.startswith('_'):  # what Python and debuggers look up on any module
            raise AttributeError(f'module mmcv._ext has no attribute {name!r}')

        def unavailable(*args, **kwargs):
            raise NotImplementedError(
                f'mmcv operator {name!r} is not available: the installed mmcv has no compiled operators and '
                f'convnext_dense brings only {", ".join(OPERATORS)}; build mmcv from source with '
                '`MMCV_WITH_OPS=1 pip install --no-build-isolation` in place of mmcv-lite, see docs/operators.md')

        return unavailable


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that stay, best score first; a box goes if its IoU with a better one is > the threshold.

    Half-precision input is compared in float32. With offset 1 the work is done on the CPU.

    Args:
        boxes: (n, 4) as x1, y1, x2, y2, in pixels.
        scores: (n,). Among equal ones the box that comes first in the input wins.
        iou_threshold: in [0, 1].
        offset: 0, or 1 where a box of x1 == x2 is one pixel wide.
    Returns:
        (kept,) int64.
    Raises:
        ValueError: boxes and scores are on different devices.
    """
    _same_device('nms', boxes=boxes, scores=scores)
    dtype = _wide(boxes, scores)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    # The kernel takes the threshold in float32; torchvision compares in float64, where 0.6 and 3 / 5 differ.
    threshold = float(np.float32(iou_threshold))
    if offset == 0:
        import torchvision.ops
        return torchvision.ops.nms(boxes, scores, threshold)
    order = scores.argsort(descending=True, stable=True)
    table = _table(boxes[order], offset)
    left, kept = np.arange(len(boxes)), []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[~(_iou(table, best, left, offset) > threshold)]
    return order[torch.as_tensor(kept, dtype=torch.long, device=order.device)]


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float,
            method: int, offset: int) -> Tensor:
    """Soft-NMS: a box's score shrinks with its overlap with better ones, and it goes below ``min_score``.

    In numpy, because the interface is for the CPU only and the inner step is small. Ties are broken as in mmcv.

    Args:
        boxes: (n, 4) as x1, y1, x2, y2, in pixels.
        scores: (n,).
        dets: (n, 5), receives the boxes that stay and their new scores, best first.
        iou_threshold: in [0, 1]; naive and linear leave scores alone below it.
        sigma: width of the gaussian method.
        min_score: boxes below it go, except that the best one always stays.
        method: NAIVE, LINEAR or GAUSSIAN.
        offset: as in :func:`nms`.
    Returns:
        (kept,) int64, indices into ``boxes`` in the order of ``dets``.
    """
    dtype = _wide(boxes, scores)
    table = _table(boxes.to(dtype), offset)
    values = scores.detach().to(dtype).numpy().copy()
    real = values.dtype.type
    threshold, sigma, min_score = real(np.float32(iou_threshold)), real(np.float32(sigma)), real(np.float32(min_score))
    alive, done = np.arange(len(values)), 0  # alive[:done] are chosen, alive[done:] wait
    while done < len(alive):
        waiting = values[alive[done:]]
        # Two boxes without area overlap by 0 / 0; the kernel passes over a NaN unless it stands first.
        best = done + (0 if np.isnan(waiting[0]) else np.nanargmax(waiting))
        alive[[done, best]] = alive[[best, done]]
        rest = alive[done + 1:]
        overlap = _iou(table, alive[done], rest, offset)
        if method == GAUSSIAN:  # exp in float64: the nearest float32, as the C library's nearly always is
            weight = np.exp(np.float64(-(overlap * overlap) / sigma)).astype(real)
        else:
            weight = np.where(overlap >= threshold, 1 - overlap if method == LINEAR else real(0), real(1))
        values[rest] *= weight
        alive = np.concatenate([alive[:done + 1], _drop(rest, values[rest] < min_score)])
        done += 1
    kept = torch.from_numpy(alive)
    dets[:len(kept), :4] = boxes[kept].detach()
    dets[:len(kept), 4] = torch.from_numpy(values)[kept]
    return kept


def _drop(items: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """``items`` without the marked ones, the last kept item moved into each gap as the kernel does (order: ties)."""
    size = len(items) - np.count_nonzero(drop)
    kept = items[:size].copy()
    kept[drop[:size]] = items[size:][~drop[size:]][::-1]
    return kept


def _table(boxes: Tensor, offset: int) -> np.ndarray:
    """(5, n): x1, y1, x2, y2 and area of each box."""
    x1, y1, x2, y2 = boxes.detach().cpu().numpy().T
    return np.stack([x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)])


def _iou(table: np.ndarray, one: int, others: np.ndarray, offset: int) -> np.ndarray:
    """IoU of box ``one`` with ``others``, in the kernel's order of operations so that rounding agrees."""
    (x1, y1, x2, y2, area), (xs1, ys1, xs2, ys2, areas) = table[:, one], table[:, others]
    zero = table.dtype.type(0)
    width = np.maximum(zero, np.minimum(x2, xs2) - np.maximum(x1, xs1) + offset)
    height = np.maximum(zero, np.minimum(y2, ys2) - np.maximum(y1, ys1) + offset)
    shared = width * height
    with np.errstate(divide='ignore', invalid='ignore'):
        return shared / (area + areas - shared)


@torch.no_grad()
def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """RoIAlign (He et al. 2017, section 3); computes in float32 whatever half precision the tensors have.

    Args:
        input: (N, C, H, W) features.
        rois: (n, 5) as image index, x1, y1, x2, y2, in pixels of the image.
        output: (n, C, aligned_height, aligned_width), receives the result.
        argmax_y, argmax_x: as ``output``, receive where each maximum lies (feature coordinates); unused with AVG.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: samples per bin and direction; 0: as many as the bin has feature pixels, rounded up.
        pool_mode: MAX or AVG over a bin's samples.
        aligned: whether pixel centres lie at half-integers; if not, RoIs are at least one feature pixel wide.
    Raises:
        ValueError: devices differ or, on the CPU only, an RoI is not finite, has a negative size or names no image.
    """
    _check_rois('roi_align_forward', rois, len(input), aligned, input=input, output=output)
    dtype = _wide(input)
    size = (aligned_height, aligned_width)
    if pool_mode == MAX:
        _max_forward(input.to(dtype), rois.to(dtype), output, argmax_y, argmax_x, size, spatial_scale, sampling_ratio,
                     aligned)
        return
    import torchvision.ops  # noqa: F401  (registers the operator)
    output.copy_(torch.ops.torchvision.roi_align(input.to(dtype), rois.to(dtype), spatial_scale, *size,
                                                 sampling_ratio, aligned))


@torch.no_grad()
def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Adds the gradient with respect to RoIAlign's features to ``grad_input``; other arguments and errors as above."""
    _check_rois('roi_align_backward', rois, len(grad_input), aligned, grad_output=grad_output, grad_input=grad_input)
    dtype = _wide(grad_output)
    if pool_mode == MAX:
        grad_input.add_(_max_backward(grad_output.to(dtype), rois[:, 0].long(), argmax_y.to(dtype),
                                      argmax_x.to(dtype), grad_input.shape))
        return
    import torchvision.ops  # noqa: F401  (registers the operator)
    grad_input.add_(torch.ops.torchvision._roi_align_backward(
        grad_output.to(dtype), rois.to(dtype), spatial_scale, aligned_height, aligned_width, *grad_input.shape,
        sampling_ratio, aligned))


def _max_forward(features, rois, output, argmax_y, argmax_x, size, spatial_scale, sampling_ratio, aligned) -> None:
    """RoIAlign with the maximum of each bin, one RoI after the other."""
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.)
    start, extent = corners[:, :2].flip(1), (corners[:, 2:] - corners[:, :2]).flip(1)  # (n, 2) as y, x
    if not aligned:
        extent = extent.clamp(min=1)
    bins = extent / extent.new_tensor(size)
    samples = torch.full_like(bins, sampling_ratio) if sampling_ratio > 0 else bins.ceil()

    def positions(roi: int, axis: int, count: int) -> Tensor:
        """(size[axis], count) sample coordinates along one axis."""
        step = torch.arange(max(count, size[axis]), dtype=rois.dtype, device=rois.device)
        within = (step[:count] + 0.5) * bins[roi, axis] / count if count else step[:0]
        return (start[roi, axis] + step[:size[axis]] * bins[roi, axis])[:, None] + within

    for roi, (image, counts) in enumerate(zip(rois[:, 0].long().tolist(), samples.long().tolist(), strict=True)):
        y = positions(roi, 0, counts[0])[:, None, :, None]
        x = positions(roi, 1, counts[1])[None, :, None, :]
        y, x = (at.flatten(2) for at in torch.broadcast_tensors(y, x))  # (height, width, samples)
        index, weight = _corners(y, x, features.shape[2:])
        near = features[image].flatten(1)[:, index]
        value = weight[0] * near[:, 0] + weight[1] * near[:, 1] + weight[2] * near[:, 2] + weight[3] * near[:, 3]
        # A sample of the starting value goes first: it wins in an empty bin, and its place -1 means "no gradient".
        output[roi], which = pad(value, (1, 0), value=MAX_STARTS_AT).max(-1)
        for argmax, place in ((argmax_y, y), (argmax_x, x)):
            places = pad(place, (1, 0), value=-1.).expand(*which.shape, -1)
            argmax[roi] = places.gather(-1, which[..., None])[..., 0]


def _max_backward(grad, image, y, x, shape) -> Tensor:
    """Each bin's gradient goes to the four pixels around its maximum."""
    index, weight = _corners(y, x, shape[2:])
    weight = weight * (y != -1)
    plane = image[:, None] * shape[1] + torch.arange(shape[1], device=image.device)
    index = index + (plane * shape[2] * shape[3])[..., None, None]
    total = grad.new_zeros(shape)
    total.view(-1).index_add_(0, index.movedim(0, -1).flatten(), (grad * weight).movedim(0, -1).flatten())
    return total


def _corners(y: Tensor, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Flat indices and bilinear weights, (4, ...) each, of the pixels around (y, x); weight 0 beyond the border."""
    outside = (y < -1) | (y > size[0]) | (x < -1) | (x > size[1])
    low, high, part = zip(*(_neighbours(at, end) for at, end in zip((y, x), size, strict=True)), strict=True)
    ly, lx = part
    index = torch.stack([row * size[1] + column for row in (low[0], high[0]) for column in (low[1], high[1])])
    weight = torch.stack([row * column for row in (1 - ly, ly) for column in (1 - lx, lx)])
    return index, weight.masked_fill(outside, 0)


def _neighbours(at: Tensor, end: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after coordinate ``at`` of ``end`` pixels, and how far past the first it lies."""
    at = at.clamp(min=0)
    low = at.long().clamp(max=end - 1)
    return low, (low + 1).clamp(max=end - 1), torch.where(low == end - 1, 0, at - low)


def _wide(*tensors: Tensor) -> torch.dtype:
    """float32, or float64 where a tensor has it."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _same_device(operator: str, **tensors: Tensor) -> None:
    if len({tensor.device for tensor in tensors.values()}) > 1:
        places = ', '.join(f'{name} on {tensor.device}' for name, tensor in tensors.items())
        raise ValueError(f'{operator}: all tensors must be on one device, found {places}; move them first')


def _check_rois(operator: str, rois: Tensor, images: int, aligned: bool, **tensors: Tensor) -> None:
    """Refuse what would read beyond the features; values on the CPU only, where looking costs no waiting."""
    _same_device(operator, rois=rois, **tensors)
    if rois.device.type != 'cpu':
        return
    if not rois.isfinite().all():
        raise ValueError(f'{operator}: RoIs must be finite, found NaN or inf; the training may have diverged')
    if ((rois[:, 0] < 0) | (rois[:, 0] >= images)).any():
        raise ValueError(f'{operator}: column 0 of rois must index one of {images} images, found '
                         f'{rois[:, 0].min():g} to {rois[:, 0].max():g}')
    if aligned and (rois[:, 3:] < rois[:, 1:3]).any():
        raise ValueError(f'{operator}: RoIs must have x2 >= x1 and y2 >= y1 with aligned=True, found a negative size')


OPERATORS = {operator.__name__: operator for operator in (nms, softnms, roi_align_forward, roi_align_backward)}
