"""Deformable and masked convolution, CARAFE, PSA masks, attention and focal loss against torch, mmcv and mmdet."""
import pytest
import torch
import torch.nn.functional as F

LAYOUTS = [torch.contiguous_format, torch.channels_last]
BOTH_HALVES = [torch.float16, torch.bfloat16]


def random(*shape, seed=0, dtype=torch.float64, grad=True):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_(grad)


def assert_same_gradients(got, expected, inputs, atol):
    """Gradients of two results by ``inputs``, for the same random weights of the results."""
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)
    weight = random(*got.shape, seed=9, dtype=got.dtype, grad=False)
    pairs = zip(*(torch.autograd.grad((result * weight).sum(), inputs) for result in (got, expected)), strict=True)
    for ours, theirs in pairs:
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


# -------------------------------------------------------------------------------- deformable convolution
def loop_deform_conv(x, offset, mask, weight, stride, pad, dilation, groups, deform_groups):
    """Deformable convolution one output cell and one sample at a time; zero outside the map."""
    n, channels, height, width = x.shape
    out_channels, _, kernel_h, kernel_w = weight.shape
    cells = []
    for image in range(n):
        for row in range(offset.shape[2]):
            for column in range(offset.shape[3]):
                patch = []
                for c in range(channels):
                    group = c // (channels // deform_groups)
                    for k in range(kernel_h * kernel_w):
                        at = (group * kernel_h * kernel_w + k)
                        y = row * stride[0] - pad[0] + k // kernel_w * dilation[0] + offset[image, 2 * at, row, column]
                        x_ = (column * stride[1] - pad[1] + k % kernel_w * dilation[1]
                              + offset[image, 2 * at + 1, row, column])
                        value = x.new_zeros(())
                        for yy in (int(torch.floor(y)), int(torch.floor(y)) + 1):
                            for xx in (int(torch.floor(x_)), int(torch.floor(x_)) + 1):
                                if 0 <= yy < height and 0 <= xx < width:
                                    value = value + x[image, c, yy, xx] * (1 - (y - yy).abs()) * (1 - (x_ - xx).abs())
                        patch.append(value * (1 if mask is None else mask[image, at, row, column]))
                patch = torch.stack(patch).view(groups, -1)
                cells.append(torch.einsum('gk,gok->go', patch, weight.view(groups, out_channels // groups, -1)))
    return torch.stack(cells).view(n, *offset.shape[2:], out_channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('modulated', [False, True])
def test_deform_conv_and_its_gradients_equal_a_loop(mmcv_ops, modulated, layout):
    """Kernel 3 x 2, stride, padding and dilation that differ by axis, two groups of both kinds."""
    options = dict(stride=(2, 1), pad=(1, 2), dilation=(1, 2), groups=2, deform_groups=2)
    x = random(2, 4, 6, 5).detach().contiguous(memory_format=layout).requires_grad_()
    weight, offset = random(6, 2, 3, 2, seed=1), random(2, 2 * 6 * 2, 3, 7, seed=2)
    mask = random(2, 2 * 6, 3, 7, seed=3) if modulated else None
    bias = random(6, seed=4)
    expected = loop_deform_conv(x, offset, mask, weight, **options)
    arguments = tuple(options.values())
    if modulated:
        got, expected = mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *arguments), \
            expected + bias[:, None, None]
        assert_same_gradients(got, expected, (x, offset, mask, weight, bias), 1e-10)
    else:
        got = mmcv_ops.deform_conv2d(x, offset, weight, *arguments)
        assert_same_gradients(got, expected, (x, offset, weight), 1e-10)


def test_modulated_deform_conv_reads_offsets_of_a_larger_map_as_mmcv_does(mmcv_ops):
    """DyHead hands those of one level to the next coarser one: mmcv reads the memory with the result's strides."""
    x, weight = random(2, 4, 3, 4), random(6, 4, 3, 3, seed=1)
    offset, mask = random(2, 18, 5, 7, seed=2), random(2, 9, 5, 7, seed=3)

    def as_read(maps):
        return torch.stack([torch.as_strided(image, (len(image), 3, 4), (12, 4, 1), image.storage_offset())
                            for image in maps])

    expected = loop_deform_conv(x, as_read(offset), as_read(mask), weight, (1, 1), (1, 1), (1, 1), 1, 1)
    got = mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)
    assert_same_gradients(got, expected, (x, offset, mask, weight), 1e-10)
    with pytest.raises(ValueError, match=r'of \(2, 4\) positions are too few for a result of \(3, 4\)'):
        mmcv_ops.modulated_deform_conv2d(x, offset[:, :, :2, :4], mask[:, :, :2, :4], weight, None, 1, 1)


def test_deform_conv_without_offsets_is_a_convolution(mmcv_ops):
    x, weight = random(2, 4, 6, 7), random(5, 4, 3, 3, seed=1)
    offset = torch.zeros(2, 18, 6, 7, dtype=torch.float64, requires_grad=True)
    got = mmcv_ops.deform_conv2d(x, offset, weight, 1, 1)
    assert_same_gradients(got, F.conv2d(x, weight, padding=1), (x, weight), 1e-10)
    # samples at exactly -1, in the padding, have no gradient in mmcv (and in torchvision they do)
    slope = torch.autograd.grad(mmcv_ops.deform_conv2d(x, offset, weight, 1, 1).sum(), offset)[0]
    assert slope[:, :6, 0].abs().sum() == 0 and (slope[:, :6, 1:-1, 1:-1] != 0).all()


def test_deform_conv_works_image_by_image_where_memory_is_short(mmcv_ops, monkeypatch):
    from convnext_dense.mm.operators import deform_conv
    x, weight, offset = random(3, 4, 6, 5), random(6, 4, 3, 3, seed=1), random(3, 18, 6, 5, seed=2)
    mask = random(3, 9, 6, 5, seed=3)

    def run():
        result = mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)
        return result, *torch.autograd.grad(result.square().sum(), (x, offset, mask, weight))

    whole = run()
    monkeypatch.setattr(deform_conv, 'MAX_COLUMNS', 1)
    torch.testing.assert_close(run(), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize('needed', [[0], [1], [2], [0, 2], [1, 2]])
def test_each_gradient_of_deform_conv_alone(mmcv_ops, needed):
    """The weight's gradient is kept from one call to the next; what is not asked for must not disturb it."""
    tensors = [random(1, 2, 5, 5, seed=i, grad=False) if i == 0 else random(*shape, seed=i, grad=False)
               for i, shape in enumerate([(1, 2, 5, 5), (1, 18, 5, 5), (3, 2, 3, 3)])]
    everything = [tensor.clone().requires_grad_() for tensor in tensors]
    mmcv_ops.deform_conv2d(*everything, 1, 1).square().sum().backward()
    some = [tensor.clone().requires_grad_(i in needed) for i, tensor in enumerate(tensors)]
    result = mmcv_ops.deform_conv2d(*some, 1, 1)
    for _ in range(2):
        result.square().sum().backward(retain_graph=True)
    for i in needed:
        torch.testing.assert_close(some[i].grad, 2 * everything[i].grad)


@pytest.mark.parametrize('type_', ['DCN', 'DCNv2', 'SAC'])
@pytest.mark.parametrize('dtype', [None, *BOTH_HALVES])
def test_layers_of_mmcv_train_under_autocast(mmcv_ops, type_, dtype):
    from mmcv.cnn import build_conv_layer
    torch.manual_seed(0)
    options = dict(use_deform=True) if type_ == 'SAC' else {}
    layer = build_conv_layer(dict(type=type_, **options), 4, 6, 3, padding=1, bias=type_ == 'DCNv2')
    x = torch.randn(2, 4, 9, 8, requires_grad=True)
    plain = layer(x)
    with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
        result = layer(x)
    result.float().square().sum().backward()
    torch.testing.assert_close(result.float(), plain, rtol=0.05, atol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters()) and x.grad.abs().sum() > 0


# -------------------------------------------------------------------------------- masked convolution
def test_masked_conv_is_a_convolution_at_the_mask(mmcv_ops):
    layer, x = mmcv_ops.MaskedConv2d(3, 4, (3, 5), padding=(1, 2)), torch.randn(1, 3, 6, 7)
    for mask in (torch.rand(1, 6, 7) > 0.5, torch.zeros(1, 6, 7, dtype=torch.bool), torch.ones(1, 6, 7)):
        with torch.no_grad():
            torch.testing.assert_close(layer(x, mask), layer(x) * (mask > 0), rtol=0, atol=1e-6)


# -------------------------------------------------------------------------------- CARAFE
def unfold_carafe(features, masks, kernel, groups, scale):
    """CARAFE by unfolding every neighbourhood."""
    n, c, h, w = features.shape
    patches = F.unfold(features, kernel, padding=kernel // 2).view(n, groups, c // groups, kernel ** 2, h, 1, w, 1)
    weights = masks.view(n, groups, 1, kernel ** 2, h, scale, w, scale)
    return (patches * weights).sum(3).reshape(n, c, h * scale, w * scale)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('kernel, groups, scale', [(5, 1, 2), (3, 2, 3), (1, 3, 1)])
def test_carafe_and_its_gradients_equal_unfolding(mmcv_ops, kernel, groups, scale, layout):
    features = random(2, 6, 4, 5).detach().contiguous(memory_format=layout).requires_grad_()
    masks = random(2, groups * kernel ** 2, 4 * scale, 5 * scale, seed=1)
    expected = unfold_carafe(features, masks, kernel, groups, scale)
    assert_same_gradients(mmcv_ops.carafe(features, masks, kernel, groups, scale), expected, (features, masks), 1e-12)
    naive = mmcv_ops.carafe_naive(features, masks, kernel, groups, scale)  # its backward asserts a GPU, in mmcv
    torch.testing.assert_close(naive, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('dtype', BOTH_HALVES)
def test_carafe_in_half_precision_rounds_the_result_only(mmcv_ops, dtype):
    features, masks = random(1, 4, 5, 6, dtype=torch.float32), random(1, 25, 10, 12, seed=1, dtype=torch.float32)
    features, masks = (tensor.detach().to(dtype).requires_grad_() for tensor in (features, masks))
    result = mmcv_ops.carafe(features, masks, 5, 1, 2)
    result.sum().backward()
    wide = [tensor.detach().float().requires_grad_() for tensor in (features, masks)]
    expected = mmcv_ops.carafe(*wide, 5, 1, 2)
    expected.sum().backward()
    assert result.equal(expected.to(dtype))
    assert features.grad.equal(wide[0].grad.to(dtype)) and masks.grad.equal(wide[1].grad.to(dtype))


# -------------------------------------------------------------------------------- PSA mask
def loop_psa_mask(x, distribute, h_mask, w_mask):
    """The mask of every pixel laid over the map, centred on the pixel."""
    n, _, height, width = x.shape
    out = [[x[:, 0, 0, 0] * 0 for _ in range(height * width)] for _ in range(height * width)]
    for h in range(height):
        for w in range(width):
            for i in range(h_mask):
                for j in range(w_mask):
                    y, z = h + i - (h_mask - 1) // 2, w + j - (w_mask - 1) // 2
                    if 0 <= y < height and 0 <= z < width:
                        pixel, place = h * width + w, y * width + z
                        first, second = (pixel, place) if distribute else (place, pixel)
                        out[first][second] = x[:, i * w_mask + j, h, w]
    return torch.stack([torch.stack(row, 1) for row in out], 1).view(n, height * width, height, width)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('mask', [(3, 5), (9, 3), (4, 2)])
@pytest.mark.parametrize('kind', ['collect', 'distribute'])
def test_psa_mask_and_its_gradient_equal_a_loop(mmcv_ops, kind, mask, layout):
    x = random(2, mask[0] * mask[1], 4, 3).detach().contiguous(memory_format=layout).requires_grad_()
    expected = loop_psa_mask(x, kind == 'distribute', *mask)
    assert_same_gradients(mmcv_ops.PSAMask(kind, mask)(x), expected, (x,), 0)


# -------------------------------------------------------------------------------- deformable attention
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, *BOTH_HALVES])
def test_deformable_attention_and_its_gradients_equal_mmcvs_own_for_cpus(mmcv_ops, dtype):
    """The function that mmcv calls for tensors on a GPU, here on the CPU."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
    shapes, starts = torch.tensor([[4, 5], [2, 3], [1, 1]]), torch.tensor([0, 20, 26])
    value = random(2, 27, 3, 4).detach().to(dtype).requires_grad_()
    places = (torch.rand(2, 7, 3, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 1.4 - 0.2).to(dtype)
    weights = random(2, 7, 3, 3, 2, seed=2, grad=False).softmax(-1).to(dtype)
    inputs = value, places.requires_grad_(), weights.requires_grad_()
    got = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, places, weights, 64)
    wide = [tensor.detach().to(max(dtype, torch.float32, key=lambda d: d.itemsize)).requires_grad_()
            for tensor in inputs]
    expected = multi_scale_deformable_attn_pytorch(wide[0], shapes, *wide[1:])
    assert got.dtype == dtype
    slope = random(*expected.shape, seed=3, dtype=expected.dtype, grad=False).to(dtype)
    results = (got, *torch.autograd.grad(got, inputs, slope))
    references = (expected, *torch.autograd.grad(expected, wide, slope.to(expected.dtype)))
    for ours, theirs in zip(results, references, strict=True):
        torch.testing.assert_close(ours, theirs.to(dtype), rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps * 4)


# -------------------------------------------------------------------------------- focal loss
@pytest.mark.parametrize('gamma, alpha', [(2.0, 0.25), (1.5, 0.6)])
def test_sigmoid_focal_loss_equals_mmdets_own_for_cpus(mmcv_ops, gamma, alpha):
    focal_loss = pytest.importorskip('mmdet.models.losses.focal_loss')
    logits = (random(50, 7) * 4).detach().requires_grad_()
    target = torch.randint(0, 8, (50,), generator=torch.Generator().manual_seed(1))  # 7 is background
    got = mmcv_ops.sigmoid_focal_loss(logits, target, gamma, alpha, None, 'none')
    one_hot = F.one_hot(target, 8)[:, :7]
    expected = focal_loss.py_sigmoid_focal_loss(logits, one_hot, None, gamma, alpha, reduction='none')
    assert_same_gradients(got.sum(1), expected.sum(1), (logits,), 1e-10)


def test_sigmoid_focal_loss_weighs_rows_by_their_class(mmcv_ops):
    logits, target, weight = random(9, 3), torch.arange(9) % 3, torch.tensor([1., 5, 0.5], dtype=torch.float64)
    plain = mmcv_ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    weighed = mmcv_ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, 'none')
    assert_same_gradients(weighed.sum(1), plain.sum(1) * weight[target], (logits,), 1e-12)


@pytest.mark.parametrize('weighed', [False, True])
def test_softmax_focal_loss_equals_its_definition(mmcv_ops, weighed):
    logits = random(40, 5)
    target = torch.randint(-1, 5, (40,), generator=torch.Generator().manual_seed(1))
    weight = torch.tensor([1., 2, 3, 4, 5], dtype=torch.float64) if weighed else None
    got = mmcv_ops.softmax_focal_loss(logits, target, 2.0, 0.25, weight, 'sum')
    counted = target >= 0
    p = logits.softmax(1)[counted, target[counted]]
    factor = weight[target[counted]] if weighed else 1
    assert_same_gradients(got, (-0.25 * (1 - p) ** 2 * p.log() * factor).sum(), (logits,), 1e-10)


@pytest.mark.parametrize('function', ['sigmoid_focal_loss', 'softmax_focal_loss'])
def test_focal_loss_of_certain_and_of_no_rows(mmcv_ops, function):
    """Logits whose sigmoid is 0 or 1 in float32, and half precision, give finite losses and gradients."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        logits = torch.tensor([[100., -100], [-100, 100]]).to(dtype).requires_grad_()
        loss = getattr(mmcv_ops, function)(logits, torch.tensor([1, 1]), 2.0, 0.25, None, 'sum')
        loss.backward()
        assert loss.dtype == dtype and loss.isfinite() and loss > 10 and logits.grad.isfinite().all()
        empty = torch.zeros(0, 3, dtype=dtype, requires_grad=True)
        getattr(mmcv_ops, function)(empty, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum').backward()
        assert empty.grad.shape == (0, 3)


# -------------------------------------------------------------------------------- NMS-match
def test_nms_match_equals_a_loop(mmcv_ops):
    from torchvision.ops import box_iou
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(80, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + torch.rand(80, 2, generator=generator) * 40], 1)
    dets = torch.cat([boxes, torch.randperm(80, generator=generator)[:, None] / 80], 1)
    for threshold in (0.1, 0.3, 0.5):
        groups, free = [], dets[:, 4].argsort(descending=True).tolist()
        while free:
            leader = free[0]
            overlap = box_iou(boxes[[leader]], boxes)[0]
            groups.append([leader] + [i for i in free[1:] if overlap[i] >= threshold])
            free = [i for i in free if i not in groups[-1]]
        got = mmcv_ops.nms_match(dets, threshold)
        assert [group.tolist() for group in got] == groups and max(map(len, groups)) > 1
    assert mmcv_ops.nms_match(torch.zeros(0, 5), 0.5) == []


# -------------------------------------------------------------------------------- synchronised batch normalisation
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_sync_bn_of_one_process_is_batch_norm(mmcv_ops, layout, dtype):
    from mmcv.ops.sync_bn import SyncBatchNormFunction
    x = random(3, 4, 5, 6, dtype=torch.float32, grad=False).to(dtype).contiguous(memory_format=layout)
    weight, bias = random(4, seed=1, dtype=torch.float32), random(4, seed=2, dtype=torch.float32)
    results = []
    for ours in (True, False):
        maps, mean, var = x.clone().requires_grad_(), torch.ones(4), torch.full((4,), 2.)
        wide = maps if ours else maps.float()
        out = SyncBatchNormFunction.apply(wide, mean, var, weight, bias, 0.3, 1e-5, None, 1, 'default') if ours \
            else F.batch_norm(wide, mean, var, weight, bias, True, 0.3, 1e-5)
        slope = random(*x.shape, seed=3, dtype=torch.float32, grad=False).to(out.dtype)
        results.append([out, mean, var, *torch.autograd.grad(out, (maps, weight, bias), slope)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got.float(), expected.float(), rtol=1e-3 if dtype == torch.float16 else 1e-5,
                                   atol=5e-3 if dtype == torch.float16 else 1e-5)
