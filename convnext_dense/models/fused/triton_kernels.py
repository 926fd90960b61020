"""Triton kernels of the block. Tensors are contiguous (N, H, W, C); sums are float32, or float64 for float64 inputs.

Imported where a kernel is launched: Triton comes with torch on Linux and is not needed elsewhere.

Two ideas: a tile holds every channel of its positions, so that LayerNorm needs no second pass; and a value of the
input, once loaded, goes into up to four rows of the output.
"""
import triton
import triton.language as tl


@triton.jit
def depthwise_tile(x, weight, top, column, c, height, width, channels, start,
                   FLIP: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr):
    """Depthwise 7x7 convolution at ROWS rows from ``top``, columns and channels: four (columns, channels) tiles.

    ``start`` has the tiles' first values, as the bias. ``weight`` is (49, C). FLIP turns the kernel around, which makes
    this the gradient of the input.
    """
    inside = c < channels
    first = start + tl.zeros((column.shape[0], c.shape[0]), ACC)
    second, third, fourth = first, first, first
    if ROWS == 1:  # the widest maps: one tap at a time takes the fewest registers
        for index in range(49):
            y, at = top + index // 7 - 3 + tl.zeros_like(column), column + index % 7 - 3
            mask = ((at >= 0) & (at < width) & (y >= 0) & (y < height))[:, None] & inside[None, :]
            value = tl.load(x + (y * width + at)[:, None] * channels + c[None, :], mask=mask, other=0).to(ACC)
            tap = tl.load(weight + (48 - index if FLIP else index) * channels + c, mask=inside, other=0)
            first += value * tap.to(ACC)[None, :]
    for dx in range(0 if ROWS == 1 else 7):
        at = column + dx - 3
        valid = (at >= 0) & (at < width)
        tap = weight + (6 - dx if FLIP else dx) * channels + c
        step = -7 * channels if FLIP else 7 * channels
        tap += (42 * channels if FLIP else 0)
        k0 = tl.load(tap, mask=inside, other=0).to(ACC)[None, :]
        k1 = tl.load(tap + step, mask=inside, other=0).to(ACC)[None, :]
        k2 = tl.load(tap + 2 * step, mask=inside, other=0).to(ACC)[None, :]
        k3 = tl.load(tap + 3 * step, mask=inside, other=0).to(ACC)[None, :]
        k4 = tl.load(tap + 4 * step, mask=inside, other=0).to(ACC)[None, :]
        k5 = tl.load(tap + 5 * step, mask=inside, other=0).to(ACC)[None, :]
        k6 = tl.load(tap + 6 * step, mask=inside, other=0).to(ACC)[None, :]
        kernel = (k0, k1, k2, k3, k4, k5, k6)
        for row in tl.static_range(ROWS + 6):
            y = top + row - 3 + tl.zeros_like(column)  # Triton's interpreter wants masks of one shape
            mask = (valid & (y >= 0) & (y < height))[:, None] & inside[None, :]
            value = tl.load(x + (y * width + at)[:, None] * channels + c[None, :], mask=mask, other=0).to(ACC)
            if row < 7:
                first += value * kernel[row]
            if ROWS > 1 and row >= 1 and row < 8:
                second += value * kernel[row - 1]
            if ROWS > 2 and row >= 2 and row < 9:
                third += value * kernel[row - 2]
            if ROWS > 3 and row >= 3:
                fourth += value * kernel[row - 3]
    return first, second, third, fourth


@triton.jit
def normalize(y, inside, channels, eps):
    """A tile's rows with mean 0 and variance 1 over their channels, and 1 / deviation."""
    mean = tl.sum(y, 1) / channels
    centred = tl.where(inside[None, :], y - mean[:, None], 0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 1) / channels + eps)
    return centred * scale[:, None], scale


@triton.jit
def store_normalized(out, y, row, column, c, height, width, channels, gamma, beta, eps):
    inside = c < channels
    hat, _ = normalize(y, inside, channels, eps)
    mask = ((column < width) & (row + tl.zeros_like(column) < height))[:, None] & inside[None, :]
    value = hat * gamma[None, :] + beta[None, :]
    tl.store(out + (row * width + column)[:, None] * channels + c[None, :], value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def store_tile(out, value, row, column, c, height, width, channels):
    mask = ((column < width) & (row + tl.zeros_like(column) < height))[:, None] & (c < channels)[None, :]
    tl.store(out + (row * width + column)[:, None] * channels + c[None, :], value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def depthwise_norm(x, weight, bias, gamma, beta, out, height, width, channels, eps,
                   ROWS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, DOUBLE: tl.constexpr):
    """LayerNorm(depthwise 7x7 (x) + bias) * gamma + beta. Grid: columns / TILE, rows / ROWS, samples."""
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    sample = tl.program_id(2).to(tl.int64) * height * width * channels
    x, out = x + sample, out + sample
    column, top = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.program_id(1) * ROWS
    c = tl.arange(0, BLOCK)
    inside = c < channels
    start = tl.load(bias + c, mask=inside, other=0).to(ACC)[None, :]
    first, second, third, fourth = depthwise_tile(x, weight, top, column, c, height, width, channels, start,
                                                  False, ROWS, ACC)
    g, b = tl.load(gamma + c, mask=inside, other=0).to(ACC), tl.load(beta + c, mask=inside, other=0).to(ACC)
    store_normalized(out, first, top, column, c, height, width, channels, g, b, eps)
    if ROWS > 1:
        store_normalized(out, second, top + 1, column, c, height, width, channels, g, b, eps)
    if ROWS > 2:
        store_normalized(out, third, top + 2, column, c, height, width, channels, g, b, eps)
    if ROWS > 3:
        store_normalized(out, fourth, top + 3, column, c, height, width, channels, g, b, eps)


@triton.jit
def norm_gradient(y, grad, out, row, column, c, height, width, channels, gamma, eps, ACC: tl.constexpr):
    """Gradient of LayerNorm's input, stored, and this tile's terms of the gradients of gamma, beta and bias."""
    inside = c < channels
    mask = ((column < width) & (row + tl.zeros_like(column) < height))[:, None] & inside[None, :]
    place = (row * width + column)[:, None] * channels + c[None, :]
    hat, scale = normalize(y, inside, channels, eps)
    g = tl.load(grad + place, mask=mask, other=0).to(ACC)
    weighted = g * gamma[None, :]
    mean = tl.sum(weighted, 1) / channels
    along = tl.sum(weighted * hat, 1) / channels
    change = tl.where(mask, (weighted - mean[:, None] - hat * along[:, None]) * scale[:, None], 0)
    tl.store(out + place, change.to(out.dtype.element_ty), mask=mask)
    return g * hat, g, change


@triton.jit
def depthwise_norm_backward(x, weight, bias, gamma, grad, out, sums, height, width, channels, eps, tiles, programs,
                            ROWS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, DOUBLE: tl.constexpr):
    """Gradient of the convolution's result, which is computed again.

    A program takes every ``programs``-th tile and stores its sums, (3, C): gradients of gamma, beta and bias.
    """
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    c = tl.arange(0, BLOCK)
    inside = c < channels
    start = tl.load(bias + c, mask=inside, other=0).to(ACC)[None, :]
    scale = tl.load(gamma + c, mask=inside, other=0).to(ACC)
    for_gamma = tl.zeros((TILE, BLOCK), ACC)
    for_beta, for_bias = for_gamma, for_gamma
    across, down = tl.cdiv(width, TILE), tl.cdiv(height, ROWS)
    for tile in range(tl.program_id(0), tiles, programs):
        column = tile % across * TILE + tl.arange(0, TILE)
        top = tile // across % down * ROWS
        sample = (tile // (across * down)).to(tl.int64) * height * width * channels
        first, second, third, fourth = depthwise_tile(x + sample, weight, top, column, c, height, width, channels,
                                                      start, False, ROWS, ACC)
        a, b, d = norm_gradient(first, grad + sample, out + sample, top, column, c, height, width, channels, scale,
                                eps, ACC)
        for_gamma, for_beta, for_bias = for_gamma + a, for_beta + b, for_bias + d
        if ROWS > 1:
            a, b, d = norm_gradient(second, grad + sample, out + sample, top + 1, column, c, height, width, channels,
                                    scale, eps, ACC)
            for_gamma, for_beta, for_bias = for_gamma + a, for_beta + b, for_bias + d
        if ROWS > 2:
            a, b, d = norm_gradient(third, grad + sample, out + sample, top + 2, column, c, height, width, channels,
                                    scale, eps, ACC)
            for_gamma, for_beta, for_bias = for_gamma + a, for_beta + b, for_bias + d
        if ROWS > 3:
            a, b, d = norm_gradient(fourth, grad + sample, out + sample, top + 3, column, c, height, width, channels,
                                    scale, eps, ACC)
            for_gamma, for_beta, for_bias = for_gamma + a, for_beta + b, for_bias + d
    sums += tl.program_id(0) * 3 * channels + c
    tl.store(sums, tl.sum(for_gamma, 0), mask=inside)
    tl.store(sums + channels, tl.sum(for_beta, 0), mask=inside)
    tl.store(sums + 2 * channels, tl.sum(for_bias, 0), mask=inside)


@triton.jit
def depthwise_input_gradient(grad, weight, out, height, width, channels, across,
                             ROWS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, DOUBLE: tl.constexpr):
    """Depthwise 7x7 with the kernel turned around. Grid: columns / TILE x channels / BLOCK, rows / ROWS, samples."""
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    sample = tl.program_id(2).to(tl.int64) * height * width * channels
    column = tl.program_id(0) % across * TILE + tl.arange(0, TILE)
    c = tl.program_id(0) // across * BLOCK + tl.arange(0, BLOCK)
    top = tl.program_id(1) * ROWS
    first, second, third, fourth = depthwise_tile(grad + sample, weight, top, column, c, height, width, channels,
                                                  tl.zeros((1, BLOCK), ACC), True, ROWS, ACC)
    store_tile(out + sample, first, top, column, c, height, width, channels)
    if ROWS > 1:
        store_tile(out + sample, second, top + 1, column, c, height, width, channels)
    if ROWS > 2:
        store_tile(out + sample, third, top + 2, column, c, height, width, channels)
    if ROWS > 3:
        store_tile(out + sample, fourth, top + 3, column, c, height, width, channels)


@triton.jit
def depthwise_weight_gradient(x, grad, sums, samples, height, width, channels, chunk,
                              TILE: tl.constexpr, BLOCK: tl.constexpr, DOUBLE: tl.constexpr):
    """Sums over ``chunk`` rows of the weight gradient. Grid: channels / BLOCK, 7 kernel rows, chunks of samples' rows.

    ``sums`` is (chunks, 49, C).
    """
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    dy = tl.program_id(1)
    inside = c < channels
    a0 = tl.zeros((TILE, BLOCK), ACC)
    a1, a2, a3, a4, a5, a6 = a0, a0, a0, a0, a0, a0
    across = tl.cdiv(width, TILE)
    first = tl.program_id(2) * chunk
    last = tl.minimum(first + chunk, samples * height)
    for item in range(first * across, last * across):
        row = item // across
        y = row % height + dy - 3
        if (y >= 0) & (y < height):
            column = item % across * TILE + tl.arange(0, TILE)
            base = row.to(tl.int64) * width * channels
            mask = (column < width)[:, None] & inside[None, :]
            g = tl.load(grad + base + column[:, None] * channels + c[None, :], mask=mask, other=0).to(ACC)
            source = x + base + ((dy - 3) * width + column - 3)[:, None] * channels + c[None, :]
            left = column - 3
            a0 += g * tl.load(source, mask=mask & (left >= 0)[:, None], other=0).to(ACC)
            a1 += g * tl.load(source + channels, mask=mask & (left + 1 >= 0)[:, None], other=0).to(ACC)
            a2 += g * tl.load(source + 2 * channels, mask=mask & (left + 2 >= 0)[:, None], other=0).to(ACC)
            a3 += g * tl.load(source + 3 * channels, mask=mask, other=0).to(ACC)
            a4 += g * tl.load(source + 4 * channels, mask=mask & (left + 4 < width)[:, None], other=0).to(ACC)
            a5 += g * tl.load(source + 5 * channels, mask=mask & (left + 5 < width)[:, None], other=0).to(ACC)
            a6 += g * tl.load(source + 6 * channels, mask=mask & (left + 6 < width)[:, None], other=0).to(ACC)
    sums += (tl.program_id(2) * 49 + dy * 7) * channels + c
    tl.store(sums, tl.sum(a0, 0), mask=inside)
    tl.store(sums + channels, tl.sum(a1, 0), mask=inside)
    tl.store(sums + 2 * channels, tl.sum(a2, 0), mask=inside)
    tl.store(sums + 3 * channels, tl.sum(a3, 0), mask=inside)
    tl.store(sums + 4 * channels, tl.sum(a4, 0), mask=inside)
    tl.store(sums + 5 * channels, tl.sum(a5, 0), mask=inside)
    tl.store(sums + 6 * channels, tl.sum(a6, 0), mask=inside)


@triton.jit
def sums_over_positions(x, grad, sums, positions, channels, chunk, BACKWARD: tl.constexpr, TILE: tl.constexpr,
                        BLOCK: tl.constexpr, DOUBLE: tl.constexpr):
    """Per sample and channel: the sum of squares of x or, BACKWARD, the sums of grad * x and of grad.

    Grid: channels / BLOCK, chunks of positions, samples. ``sums`` is (samples, chunks, 1 or 2, C).
    """
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sample, inside = tl.program_id(2), c < channels
    base = sample.to(tl.int64) * positions * channels
    product, plain = tl.zeros((TILE, BLOCK), ACC), tl.zeros((TILE, BLOCK), ACC)
    first = tl.program_id(1) * chunk
    last = tl.minimum(first + chunk, positions)
    for start in range(first, last, TILE):
        position = start + tl.arange(0, TILE)
        mask = (position < last)[:, None] & inside[None, :]
        place = base + position[:, None].to(tl.int64) * channels + c[None, :]
        value = tl.load(x + place, mask=mask, other=0).to(ACC)
        if BACKWARD:
            g = tl.load(grad + place, mask=mask, other=0).to(ACC)
            product += g * value
            plain += g
        else:
            product += value * value
    kinds = 2 if BACKWARD else 1
    sums += (sample * tl.num_programs(1) + tl.program_id(1)) * kinds * channels + c
    tl.store(sums, tl.sum(product, 0), mask=inside)
    if BACKWARD:
        tl.store(sums + channels, tl.sum(plain, 0), mask=inside)


@triton.jit
def grn_scale(squares, gamma, norm, scale, chunks, channels, eps, BLOCK: tl.constexpr, DOUBLE: tl.constexpr):
    """GRN's norms and scale of one sample, from sums of squares by chunk: 1 + gamma * norm / (mean norm + eps)."""
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    c = tl.arange(0, BLOCK)
    inside = c < channels
    squares += tl.program_id(0) * chunks * channels + c
    total = tl.zeros((BLOCK,), ACC)
    for chunk in range(chunks):
        total += tl.load(squares + chunk * channels, mask=inside, other=0)
    size = tl.sqrt(total)
    mean = tl.sum(size, 0) / channels + eps
    place = tl.program_id(0) * channels + c
    tl.store(norm + place, size, mask=inside)
    tl.store(scale + place, 1 + tl.load(gamma + c, mask=inside, other=0).to(ACC) * size / mean, mask=inside)


@triton.jit
def grn_scale_backward(sums, norm, gamma, factor, for_gamma, chunks, channels, eps,
                       BLOCK: tl.constexpr, DOUBLE: tl.constexpr):
    """Of one sample: the factor of x in the gradient of x, and the terms of the gradient of gamma."""
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    c = tl.arange(0, BLOCK)
    inside = c < channels
    sums += tl.program_id(0) * chunks * 2 * channels + c
    of_scale = tl.zeros((BLOCK,), ACC)
    for chunk in range(chunks):
        of_scale += tl.load(sums + chunk * 2 * channels, mask=inside, other=0)
    place = tl.program_id(0) * channels + c
    size = tl.load(norm + place, mask=inside, other=0)
    mean = tl.sum(size, 0) / channels + eps
    tl.store(for_gamma + place, of_scale * size / mean, mask=inside)
    of_ratio = of_scale * tl.load(gamma + c, mask=inside, other=0).to(ACC)
    of_size = of_ratio / mean - tl.sum(of_ratio * size, 0) / (mean * mean * channels)
    tl.store(factor + place, tl.where(size > 0, of_size / tl.where(size > 0, size, 1), 0), mask=inside)


@triton.jit
def positions_tile(positions, channels, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Sample, channels, which of them there are, and the places and mask of (TILE, BLOCK) values of this program.

    Grid: channels / BLOCK, positions / TILE, samples.
    """
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sample, inside = tl.program_id(2), c < channels
    position = tl.program_id(1) * TILE + tl.arange(0, TILE)
    mask = (position < positions)[:, None] & inside[None, :]
    place = (sample.to(tl.int64) * positions + position)[:, None] * channels + c[None, :]
    return sample, c, inside, place, mask


@triton.jit
def scale_and_add(x, y, scale, shift, out, positions, channels, HAS_SHIFT: tl.constexpr, HAS_Y: tl.constexpr,
                  TILE: tl.constexpr, BLOCK: tl.constexpr, DOUBLE: tl.constexpr):
    """x * scale + shift, or x * scale + y * shift with HAS_Y; scale is (N, C), shift (C), or (N, C) with HAS_Y."""
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    sample, c, inside, place, mask = positions_tile(positions, channels, TILE, BLOCK)
    value = tl.load(x + place, mask=mask, other=0).to(ACC)
    value *= tl.load(scale + sample * channels + c, mask=inside, other=0).to(ACC)[None, :]
    if HAS_Y:
        factor = tl.load(shift + sample * channels + c, mask=inside, other=0).to(ACC)[None, :]
        value += tl.load(y + place, mask=mask, other=0).to(ACC) * factor
    elif HAS_SHIFT:
        value += tl.load(shift + c, mask=inside, other=0).to(ACC)[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def residual(x, y, gamma, keep, out, positions, channels, HAS_KEEP: tl.constexpr, TILE: tl.constexpr,
             BLOCK: tl.constexpr, DOUBLE: tl.constexpr):
    """x + y * gamma * keep; gamma is (C), keep (N), 1 without HAS_KEEP."""
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    sample, c, inside, place, mask = positions_tile(positions, channels, TILE, BLOCK)
    factor = tl.load(gamma + c, mask=inside, other=0).to(ACC)
    if HAS_KEEP:
        factor *= tl.load(keep + sample).to(ACC)
    value = tl.load(x + place, mask=mask, other=0).to(ACC)
    value += tl.load(y + place, mask=mask, other=0).to(ACC) * factor[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def residual_backward(grad, y, gamma, keep, out, sums, positions, channels, chunk, HAS_KEEP: tl.constexpr,
                      TILE: tl.constexpr, BLOCK: tl.constexpr, DOUBLE: tl.constexpr):
    """Gradient of y, and sums of keep * grad * y, the gradient of gamma, over a chunk of a sample's positions.

    Grid: channels / BLOCK, chunks, samples. ``sums`` is (samples, chunks, C).
    """
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sample, inside = tl.program_id(2), c < channels
    kept = tl.load(keep + sample).to(ACC) if HAS_KEEP else 1.0
    factor = tl.load(gamma + c, mask=inside, other=0).to(ACC) * kept
    total = tl.zeros((TILE, BLOCK), ACC)
    first = tl.program_id(1) * chunk
    last = tl.minimum(first + chunk, positions)
    for start in range(first, last, TILE):
        position = start + tl.arange(0, TILE)
        mask = (position < last)[:, None] & inside[None, :]
        place = (sample.to(tl.int64) * positions + position)[:, None] * channels + c[None, :]
        g = tl.load(grad + place, mask=mask, other=0).to(ACC)
        total += g * tl.load(y + place, mask=mask, other=0).to(ACC)
        tl.store(out + place, (g * factor[None, :]).to(out.dtype.element_ty), mask=mask)
    tl.store(sums + (sample * tl.num_programs(1) + tl.program_id(1)) * channels + c, tl.sum(total, 0) * kept,
             mask=inside)
