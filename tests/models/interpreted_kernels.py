"""Values and gradients of the fused operators on the CPU, by Triton's interpreter: run by test_fused.py.

TRITON_INTERPRET=1 must be set before Triton is imported, hence a process of its own.
"""
import pytest
import torch
from torch.autograd import gradcheck

from convnext_dense.models.fused import ops

HALF = torch.bfloat16, torch.float16
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def compare(ours, reference, tensors, dtypes, others=()):
    """Largest relative differences of result and gradients from those of the plain form in float64."""
    inputs = [tensor.to(dtype).requires_grad_() for tensor, dtype in zip(tensors, dtypes, strict=True)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found, expected = ours(*inputs), reference(*exact)
    grad = torch.randn(expected.shape, dtype=torch.float64).to(found.dtype)
    found.backward(grad)
    expected.backward(grad.double())
    pairs = [(found, expected), *((a.grad, b.grad) for a, b in zip(inputs, exact, strict=True))]
    for a, b in pairs:
        error = (a.double() - b).norm() / b.norm().clamp(min=1e-30)
        assert error < TOLERANCE[a.dtype if a.dtype in HALF else min(dtypes, key=lambda d: -TOLERANCE[d])], error


def params(channels, count):
    return [torch.randn(channels, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize('shape, dtype', [
    ((1, 5, 9, 10), torch.float64), ((2, 1, 3, 40), torch.float32), ((1, 1, 2, 2100), torch.float32),
    ((1, 2, 1, 24), torch.bfloat16), ((1, 1, 3, 20), torch.float16)])
def test_depthwise_norm(shape, dtype):
    torch.manual_seed(0)
    channels = shape[-1]
    weight = 0.2 * torch.randn(channels, 1, 7, 7, dtype=torch.float64)
    tensors = [torch.randn(shape, dtype=torch.float64), weight, *params(channels, 3)]
    other = torch.float32 if dtype in HALF else dtype
    compare(lambda *inputs: ops.depthwise_norm(*inputs, 1e-6, dtype), ops.depthwise_norm_reference, tensors,
            [dtype] + [other] * 4)


@pytest.mark.parametrize('shape, dtype', [
    ((1, 1, 1, 3), torch.float64), ((2, 5, 9, 10), torch.float64), ((2, 3, 7, 160), torch.float32),
    ((1, 12, 13, 24), torch.bfloat16), ((2, 2, 5, 300), torch.float16)])
def test_grn(shape, dtype):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    x[..., 1] = 0  # a channel without norm
    other = torch.float32 if dtype in HALF else dtype
    compare(lambda *inputs: ops.grn(*inputs, 1e-6)[0], ops.grn_reference, [x, *params(shape[-1], 2)],
            [dtype, other, other])


@pytest.mark.parametrize('keep', [None, torch.tensor([0.0, 1.25])])
@pytest.mark.parametrize('dtypes', [(torch.float64,) * 3, (torch.float32,) * 3, (torch.float16,) * 3,
                                    (torch.float32, torch.bfloat16, torch.float32)])
def test_residual(keep, dtypes):
    torch.manual_seed(0)
    shape = 2, 5, 9, 140
    tensors = [torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64), *params(140, 1)]
    exact = None if keep is None else keep.double()
    compare(lambda x, y, gamma: ops.residual(x, y, gamma, keep, dtypes[0]),
            lambda x, y, gamma: ops.residual_reference(x, y, gamma, exact), tensors, dtypes)


def test_gradcheck():
    torch.manual_seed(0)
    x, y = (torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(2, 1, 7, 7, dtype=torch.float64, requires_grad=True)
    gamma, beta = (torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(lambda *inputs: ops.grn(*inputs, 1e-6)[0], (x, gamma, beta))
    keep = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert gradcheck(lambda x, y, gamma: ops.residual(x, y, gamma, keep, torch.float64), (x, y, gamma))
    assert gradcheck(lambda *inputs: ops.depthwise_norm(*inputs, 1e-3, torch.float64),
                     (x[:1, :1].detach().requires_grad_(), weight, gamma, beta, beta.detach().clone().requires_grad_()),
                     fast_mode=True)


def test_tracing_agrees_with_running():
    """torch's own check of an operator: its schema, its form for tracing, its gradients under torch.compile."""
    torch.manual_seed(0)
    x, y = (torch.randn(1, 1, 2, 4, requires_grad=True) for _ in range(2))
    weight = torch.randn(4, 1, 7, 7, requires_grad=True)
    gamma, beta = (torch.randn(4, requires_grad=True) for _ in range(2))
    torch.library.opcheck(ops.depthwise_norm, (x, weight, gamma, beta, gamma, 1e-6, torch.float32))
    torch.library.opcheck(ops.grn, (x, gamma, beta, 1e-6))
    torch.library.opcheck(ops.residual, (x, y, gamma, torch.ones(1), torch.float32))
