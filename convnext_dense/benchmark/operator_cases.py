"""Inputs on which two implementations of mmcv's operators are compared, one generator of cases a family.

A case is (option, run): ``run(module, layout)`` calls the family's operators of ``module`` on the same tensors, maps
in memory ``layout``, and returns operator name -> results. Names that ``module`` lacks are left out.
"""
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..mm.operators import nms, roi_align

Case = tuple[str, Callable[..., dict[str, list[Tensor]]]]
METHODS = {nms.NAIVE: 'naive', nms.LINEAR: 'linear', nms.GAUSSIAN: 'gaussian'}
COUNTS = (0, 1, 2, 30, 300, 1000)  # boxes
ROIS = (0, 1, 60)
SIZES = ((1, 1), (7, 7), (3, 5))


def random_boxes(count: int, generator: torch.Generator, ties: bool = False) -> tuple[Tensor, Tensor]:
    """(n, 4) boxes of which many overlap, and (n,) scores: all distinct, or of ten values with ``ties``.

    A third lies on a coarse grid, so that IoUs meet thresholds exactly; some of those have no area.
    """
    corner = torch.rand(count, 2, generator=generator) * 100
    extent = torch.rand(count, 2, generator=generator) * 60
    corner[::3], extent[::3] = (corner[::3] / 20).floor() * 20, (extent[::3] / 10).floor() * 20
    scores = (torch.randperm(count, generator=generator) + 1) / (count + 1)
    return torch.cat([corner, corner + extent], 1), (scores * 10).ceil() / 10 if ties else scores


def random_rois(count: int, images: int, generator: torch.Generator) -> Tensor:
    """(n, 5) RoIs for images of 160 x 224 pixels, some past the border, every tenth without area."""
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([300., 230.]) - 60
    extent = torch.rand(count, 2, generator=generator) * 120
    extent[::10] = 0
    image = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([image, corner, corner + extent], 1)


def nms_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for offset, ties in itertools.product((0, 1), (False, True)):
        for count, threshold, _ in itertools.product(COUNTS, (0.3, 0.5, 0.6, 0.7), range(5)):
            boxes, scores = (tensor.to(device) for tensor in random_boxes(count, random, ties))

            def run(module, layout, inputs=(boxes, scores, threshold, offset)):
                return {'nms': [module.nms(*inputs)]}

            yield f'offset {offset}{" tied" if ties else ""}', run


def softnms_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for method, ties in itertools.product(METHODS, (False, True)):
        for count, offset, min_score, threshold in itertools.product(COUNTS, (0, 1), (0., 1e-3, 0.05, 0.5),
                                                                     (0.3, 0.5)):
            boxes, scores = random_boxes(count, random, ties)

            def run(module, layout, inputs=(boxes, scores), options=(threshold, 0.5, min_score, method, offset)):
                dets = inputs[0].new_zeros(len(inputs[0]), 5)
                kept = module.softnms(*inputs, dets, *options)
                return {'softnms': [kept, dets[:len(kept)]]}

            yield f'{METHODS[method]}{" tied" if ties else ""}', run


def nms_match_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for count, threshold, _ in itertools.product(COUNTS[1:], (0.3, 0.5, 0.6, 0.7), range(5)):
        boxes, scores = random_boxes(count, random)
        dets = torch.cat([boxes, scores[:, None]], 1)

        def run(module, layout, dets=dets, threshold=threshold):
            groups = module.nms_match(dets, threshold)
            return {'nms_match': [torch.tensor([len(group) for group in groups]), torch.tensor(sum(groups, []))]}

        yield '', run


def roi_align_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for mode, count, size, ratio, aligned, stride in itertools.product(
            (roi_align.AVG, roi_align.MAX), ROIS, SIZES, (0, 1, 2), (True, False), (4, 7)):
        features = torch.randn(2, 6, 160 // stride, 224 // stride, generator=random).to(device)
        rois = random_rois(count, 2, random).to(device)
        gradient = torch.randn(count, 6, *size, generator=random).to(device)

        def run(module, layout, maps=features, rois=rois, gradient=gradient,
                options=(*size, 1 / stride, ratio, mode, aligned)):
            results = [torch.zeros_like(gradient) for _ in range(3)]
            total = torch.zeros_like(maps)
            module.roi_align_forward(maps.contiguous(memory_format=layout), rois, *results, *options)
            module.roi_align_backward(gradient, rois, *results[1:], total, *options)
            return {'roi_align_forward': results, 'roi_align_backward': [total]}

        yield 'max' if mode == roi_align.MAX else 'avg', run


def roi_pool_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for count, size, stride in itertools.product(ROIS, SIZES, (4, 7)):
        features = torch.randn(2, 6, 160 // stride, 224 // stride, generator=random).to(device)
        rois = random_rois(count, 2, random).to(device)
        gradient = torch.randn(count, 6, *size, generator=random).to(device)

        def run(module, layout, maps=features, rois=rois, gradient=gradient, options=(*size, 1 / stride)):
            result, argmax = torch.zeros_like(gradient), torch.zeros_like(gradient, dtype=torch.int)
            total = torch.zeros_like(maps)
            module.roi_pool_forward(maps.contiguous(memory_format=layout), rois, result, argmax, *options)
            module.roi_pool_backward(gradient, rois, argmax, total, *options)
            return {'roi_pool_forward': [result, argmax], 'roi_pool_backward': [total]}

        yield '', run


def deform_roi_pool_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for moved, count, size, ratio, stride in itertools.product((True, False), ROIS, SIZES, (0, 2), (4, 7)):
        features = torch.randn(2, 6, 160 // stride, 224 // stride, generator=random).to(device)
        rois = random_rois(count, 2, random).to(device)
        gradient = torch.randn(count, 6, *size, generator=random).to(device)
        offset = torch.randn(count if moved else 0, 2, *size, generator=random).to(device)

        def run(module, layout, maps=features, rois=rois, offset=offset, gradient=gradient,
                options=(*size, 1 / stride, ratio, 0.3)):
            maps = maps.contiguous(memory_format=layout)
            result, by_maps, by_offset = torch.zeros_like(gradient), torch.zeros_like(maps), torch.zeros_like(offset)
            module.deform_roi_pool_forward(maps, rois, offset, result, *options)
            module.deform_roi_pool_backward(gradient, maps, rois, offset, by_maps, by_offset, *options)
            return {'deform_roi_pool_forward': [result], 'deform_roi_pool_backward': [by_maps, by_offset]}

        yield 'moved' if moved else 'in place', run


def deform_conv_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    kernels = ((3, 3), (1, 1)), ((1, 1), (0, 0)), ((3, 2), (2, 1))  # each with its padding
    for (kernel, pad), stride, dilation, groups, reach in itertools.product(
            kernels, ((1, 1), (2, 1)), ((1, 1), (2, 1)), ((1, 1), (2, 2)), (0., 0.7, 6.)):
        cells = [(side + 2 * p - d * (k - 1) - 1) // s + 1
                 for side, p, d, k, s in zip((11, 13), pad, dilation, kernel, stride, strict=True)]
        taps = groups[1] * kernel[0] * kernel[1]
        shapes = [(2, 4, 11, 13), (6, 4 // groups[0], *kernel), (2, 2 * taps, *cells), (2, 6, *cells), (6,)]
        maps, weight, offset, gradient, bias = (torch.randn(s, generator=random).to(device) for s in shapes)
        mask = torch.rand(2, taps, *cells, generator=random).to(device)

        def run(module, layout, tensors=(maps, weight, offset * reach, gradient, bias, mask),
                sides=(kernel, stride, pad, dilation), groups=groups):
            maps, weight, offset, gradient, bias, mask = tensors
            maps, empty = maps.contiguous(memory_format=layout), maps.new_empty(0)
            found = {}
            swapped = [side for pair in sides for side in pair[::-1]]  # v1 takes width before height
            result, by_maps, by_offset, by_weight = (torch.zeros_like(t) for t in (gradient, maps, offset, weight))
            module.deform_conv_forward(maps, weight, offset, result, empty, empty.clone(), *swapped, *groups, 1)
            found['deform_conv_forward'] = [result]
            columns = maps.new_empty(0)
            module.deform_conv_backward_input(maps, offset, gradient.clone(), by_maps, by_offset, weight, columns,
                                              *swapped, *groups, 1)
            found['deform_conv_backward_input'] = [by_maps, by_offset]
            module.deform_conv_backward_parameters(maps, offset, gradient.clone(), by_weight, columns, empty.clone(),
                                                   *swapped, *groups, 1., 1)
            found['deform_conv_backward_parameters'] = [by_weight]

            options = [side for pair in sides for side in pair]
            result = torch.zeros_like(gradient)
            module.modulated_deform_conv_forward(maps, weight, bias, empty, offset, mask, result, empty.clone(),
                                                 *options, *groups, True)
            found['modulated_deform_conv_forward'] = [result]
            by = [torch.zeros_like(t) for t in (maps, weight, bias, offset, mask)]
            module.modulated_deform_conv_backward(maps, weight, bias, empty, offset, mask, empty.clone(), *by,
                                                  gradient.clone(), *options, *groups, True)
            found['modulated_deform_conv_backward'] = by
            return found

        yield 'zero offsets' if reach == 0 else 'offsets', run


def larger_offset_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    """Offsets and masks of another map than the convolution's, as DyHead has them."""
    for size, groups in itertools.product(((11, 13), (7, 20), (6, 7)), (1, 2)):
        shapes = [(2, 4, 6, 7), (6, 4, 3, 3), (2, 18 * groups, *size), (2, 6, 6, 7), (6,)]
        maps, weight, offset, gradient, bias = (torch.randn(s, generator=random).to(device) for s in shapes)
        mask = torch.rand(2, 9 * groups, *size, generator=random).to(device)

        def run(module, layout, tensors=(maps, weight, bias, offset, mask), gradient=gradient, groups=groups):
            maps, weight, bias, offset, mask = tensors
            maps, offset, mask = (t.contiguous(memory_format=layout) for t in (maps, offset, mask))
            empty, options = maps.new_empty(0), (3, 3, 1, 1, 1, 1, 1, 1, 1, groups, True)
            result = torch.zeros_like(gradient)
            given = maps, weight, bias, empty, offset, mask
            module.modulated_deform_conv_forward(*given, result, empty.clone(), *options)
            by = [torch.zeros_like(t) for t in tensors]
            module.modulated_deform_conv_backward(*given, empty.clone(), *by, gradient.clone(), *options)
            return {'modulated_deform_conv_forward': [result], 'modulated_deform_conv_backward': by}

        yield 'larger map', run


def carafe_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for images, kernel, groups, scale in itertools.product((0, 2), (1, 3, 5), (1, 2), (1, 2, 3)):
        maps = torch.randn(images, 6, 7, 9, generator=random).to(device)
        masks = torch.randn(images, groups * kernel ** 2, 7 * scale, 9 * scale, generator=random).to(device)
        gradient = torch.randn(images, 6, 7 * scale, 9 * scale, generator=random).to(device)

        def run(module, layout, tensors=(maps, masks), gradient=gradient, options=(kernel, groups, scale)):
            maps, masks = (tensor.contiguous(memory_format=layout) for tensor in tensors)
            result, by_maps, by_masks = torch.zeros_like(gradient), torch.zeros_like(maps), torch.zeros_like(masks)
            module.carafe_naive_forward(maps, masks, result, *options)
            module.carafe_naive_backward(gradient, maps, masks, by_maps, by_masks, *options)
            return {'carafe_naive_forward': [result], 'carafe_naive_backward': [by_maps, by_masks]}

        yield '', run


def masked_conv_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for kernel, part in itertools.product(((1, 1), (3, 3), (3, 5)), (0., 0.3, 1.)):
        maps = torch.randn(1, 4, 11, 13, generator=random).to(device)
        rows, columns = (torch.rand(11, 13, generator=random) < part).to(device).nonzero().T.contiguous()

        def run(module, layout, maps=maps, places=(rows, columns), kernel=kernel):
            maps = maps.contiguous(memory_format=layout)
            unfolded = maps.new_zeros(4 * kernel[0] * kernel[1], len(places[0]))
            module.masked_im2col_forward(maps, *places, unfolded, *kernel, kernel[0] // 2, kernel[1] // 2)
            folded = torch.zeros_like(maps, memory_format=torch.contiguous_format)
            module.masked_col2im_forward(unfolded[:4].contiguous(), *places, folded, 11, 13, 4)
            return {'masked_im2col_forward': [unfolded], 'masked_col2im_forward': [folded]}

        yield '', run


def psa_mask_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for kind, mask, images in itertools.product((0, 1), ((3, 3), (4, 2), (13, 17), (5, 31)), (1, 2)):
        maps = torch.randn(images, mask[0] * mask[1], 7, 9, generator=random).to(device)
        gradient = torch.randn(images, 63, 7, 9, generator=random).to(device)

        def run(module, layout, maps=maps, gradient=gradient,
                options=(kind, images, 7, 9, *mask, (mask[0] - 1) // 2, (mask[1] - 1) // 2)):
            maps = maps.contiguous(memory_format=layout)
            result, total = torch.zeros_like(gradient), torch.zeros_like(maps)
            module.psamask_forward(maps, result, *options)
            module.psamask_backward(gradient.contiguous(memory_format=layout), total, *options)
            return {'psamask_forward': [result], 'psamask_backward': [total]}

        yield ('collect', 'distribute')[kind], run


def attention_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for queries, heads, points in itertools.product((0, 1, 40), (1, 3), (1, 4)):
        shapes = torch.tensor([[8, 11], [4, 5], [1, 1]], device=device)
        starts = torch.tensor([0, 88, 108], device=device)
        value = torch.randn(2, 109, heads, 8, generator=random).to(device)
        places = (torch.rand(2, queries, heads, 3, points, 2, generator=random) * 1.4 - 0.2).to(device)
        weight = torch.rand(2, queries, heads, 3, points, generator=random).to(device)
        gradient = torch.randn(2, queries, heads * 8, generator=random).to(device)

        def run(module, layout, inputs=(value, shapes, starts, places, weight), gradient=gradient):
            by = [torch.zeros_like(inputs[i]) for i in (0, 3, 4)]
            result = module.ms_deform_attn_forward(*inputs, 64)
            module.ms_deform_attn_backward(*inputs, gradient, *by, 64)
            return {'ms_deform_attn_forward': [result], 'ms_deform_attn_backward': by}

        yield '', run


def focal_loss_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for count, gamma, alpha, weighed in itertools.product((0, 1, 200), (2., 1.5), (0.25, 0.6), (False, True)):
        logits = (torch.randn(count, 5, generator=random) * 6).to(device)
        target = torch.randint(5 if weighed else 6, (count,), generator=random).to(device)  # 5 is background
        weight = torch.rand(5 if weighed else 0, generator=random).to(device)

        def run(module, layout, logits=logits, target=target, weight=weight, options=(gamma, alpha)):
            result, slope = torch.zeros_like(logits), torch.zeros_like(logits)
            module.sigmoid_focal_loss_forward(logits, target, weight, result, *options)
            module.sigmoid_focal_loss_backward(logits, target, weight, slope, *options)
            loss, buffer, by_logits = logits.new_zeros(len(logits)), logits.new_zeros(len(logits)), slope.clone()
            probability, known = logits.softmax(1), target.clamp(max=4)
            module.softmax_focal_loss_forward(probability, known, weight, loss, *options)
            module.softmax_focal_loss_backward(probability, known, weight, buffer, by_logits, *options)
            return {'sigmoid_focal_loss_forward': [result], 'sigmoid_focal_loss_backward': [slope],
                    'softmax_focal_loss_forward': [loss], 'softmax_focal_loss_backward': [by_logits]}

        yield 'by class' if weighed else '', run


def sync_bn_cases(random: torch.Generator, device: str) -> Iterator[Case]:
    for images, channels, pixels, processes in itertools.product((1, 3), (1, 5), (1, 40), (1, 4)):
        maps = (torch.randn(images, channels, pixels, generator=random) * 3 + 1).to(device)
        gradient = torch.randn(images, channels, pixels, generator=random).to(device)
        weight, bias, mean, var = (torch.rand(channels, generator=random).to(device) for _ in range(4))

        def run(module, layout, tensors=(maps, gradient), parameters=(weight, bias), running=(mean, var),
                processes=processes):
            maps, gradient = (tensor.mT.contiguous().mT if layout == torch.channels_last else tensor
                              for tensor in tensors)
            mean, var, std, by_weight, by_bias = (torch.zeros_like(parameters[0]) for _ in range(5))
            norm, output, by_maps = (torch.zeros_like(maps) for _ in range(3))
            running = [tensor.clone() for tensor in running]
            module.sync_bn_forward_mean(maps, mean)
            module.sync_bn_forward_var(maps, mean, var)
            module.sync_bn_forward_output(maps, mean, var, *parameters, *running, norm, std, output, 1e-5, 0.1,
                                          processes)
            module.sync_bn_backward_param(gradient, norm, by_weight, by_bias)
            module.sync_bn_backward_data(gradient, parameters[0], by_weight, by_bias, norm, std, by_maps)
            return {'sync_bn_forward_mean': [mean], 'sync_bn_forward_var': [var],
                    'sync_bn_forward_output': [output, norm, std, *running],
                    'sync_bn_backward_param': [by_weight, by_bias], 'sync_bn_backward_data': [by_maps]}

        yield '', run


FAMILIES = (nms_cases, softnms_cases, nms_match_cases, roi_align_cases, roi_pool_cases, deform_roi_pool_cases,
            deform_conv_cases, larger_offset_cases, carafe_cases, masked_conv_cases, psa_mask_cases, attention_cases,
            focal_loss_cases, sync_bn_cases)
