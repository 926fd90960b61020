"""DINOv3's and EUPE's weights: Meta's layout and the hub's give the features of timm and transformers; access."""
import pytest
import torch
from random_weights import randomise

from convnext_dense.checkpoints import downloads, load_checkpoint, read_checkpoint, zoo
from convnext_dense.errors import UserError
from convnext_dense.models import ConvNeXt

DEPTHS, DIMS = [1, 1, 2, 1], [8, 16, 24, 32]
ARCH = dict(depths=DEPTHS, channels=DIMS)
TOLERANCE = dict(rtol=0, atol=1e-5)


def meta_layout(projectors: bool = False) -> dict[str, torch.Tensor]:
    """Random weights as facebookresearch/dinov3 saves its ConvNeXt: V1's names, the final norm as two names of one
    tensor, no head; EUPE's files have projectors beside them."""
    state = randomise(ConvNeXt(ARCH, layer_scale_init_value=1.0, output_norm=False)).state_dict()
    for name in ('weight', 'bias'):
        state[f'norm.{name}'] = state[f'norms.3.{name}'] = 0.5 + 0.2 * torch.randn(DIMS[-1])
    if projectors:
        state |= {'projectors.siglip.0.weight': torch.zeros(4, 4), 'projectors.siglip.0.bias': torch.zeros(4)}
    return state


def features(file, image, **options) -> tuple[torch.Tensor, ...]:
    ours = ConvNeXt(ARCH, layer_scale_init_value=1.0, **options).eval()
    load_checkpoint(ours, file, final_norm=options.get('out_indices') == (3,))
    with torch.no_grad():
        return ours(image)


@pytest.mark.parametrize('projectors', [False, True], ids=['dinov3', 'eupe'])
def test_metas_layout_gives_timms_features(projectors, image, tmp_path):
    timm = pytest.importorskip('timm')
    from timm.models.convnext import checkpoint_filter_fn
    state = meta_layout(projectors)
    model = timm.models.ConvNeXt(depths=DEPTHS, dims=DIMS, num_classes=0).eval()
    model.load_state_dict(checkpoint_filter_fn(dict(state), model))
    torch.save(state, tmp_path / 'meta.pth')
    with torch.no_grad():
        expected = model.forward_intermediates(image, intermediates_only=True)
        normalised = model.head.norm(expected[-1])  # a LayerNorm over the channels of a map
    for ours, theirs in zip(features(tmp_path / 'meta.pth', image, output_norm=False), expected, strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
    torch.testing.assert_close(features(tmp_path / 'meta.pth', image, out_indices=(3,))[0], normalised, **TOLERANCE)


def test_the_hubs_layout_gives_the_last_hidden_state(image, tmp_path):
    """transformers normalises the pooled map and every position of the map; the latter is our output norm's map."""
    transformers = pytest.importorskip('transformers')
    if not hasattr(transformers, 'DINOv3ConvNextModel'):
        pytest.skip('this transformers has no DINOv3 ConvNeXt')
    model = randomise(transformers.DINOv3ConvNextModel(
        transformers.DINOv3ConvNextConfig(depths=DEPTHS, hidden_sizes=DIMS)))
    model.save_pretrained(tmp_path)
    ours = features(tmp_path / 'model.safetensors', image, out_indices=(3,))[0]
    with torch.no_grad():
        tokens = model(image).last_hidden_state
    torch.testing.assert_close(ours.flatten(2).transpose(1, 2), tokens[:, 1:], **TOLERANCE)


def test_dense_recipes_start_without_the_final_norm(tmp_path):
    state = meta_layout()
    torch.save(state, tmp_path / 'meta.pth')
    dense, linear = ConvNeXt(ARCH, layer_scale_init_value=1.0), ConvNeXt(ARCH, layer_scale_init_value=1.0)
    load_checkpoint(dense, tmp_path / 'meta.pth')
    load_checkpoint(linear, tmp_path / 'meta.pth', final_norm=True)
    for net, weight in ((dense, torch.ones(DIMS[-1])), (linear, state['norm.weight'])):
        assert torch.equal(net.norm3.weight, weight) and torch.equal(net.norm2.weight, torch.ones(DIMS[-2]))


def test_final_norm_that_is_not_there(tmp_path):
    torch.save(ConvNeXt(ARCH, layer_scale_init_value=1.0).state_dict(), tmp_path / 'dense.pth')
    with pytest.raises(UserError, match='dense.pth has no final norm, which final_norm=True asks for'):
        load_checkpoint(ConvNeXt(ARCH, layer_scale_init_value=1.0), tmp_path / 'dense.pth', final_norm=True)


@pytest.mark.parametrize('size', ['tiny', 'small', 'base', 'large'])
def test_gated_weights_say_where_to_ask_and_where_to_put_them(size, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(downloads, '_download', None)  # no request is made
    weight = zoo.find(f'dinov3_convnext_{size}')
    file = tmp_path / 'checkpoints' / weight.url.rpartition('/')[2]
    for name in (weight.name, weight.url):
        with pytest.raises(UserError) as caught:
            read_checkpoint(name)
        message = str(caught.value)
        assert f'{weight.name} is gated' in message and weight.access in message and str(file) in message
        assert f'hf-hub:facebook/dinov3-convnext-{size}-pretrain-lvd1689m' in message and '\n' not in message
    file.parent.mkdir(exist_ok=True)
    torch.save({'norm.weight': torch.ones(2)}, file)
    assert 'norm.weight' in read_checkpoint(weight.name)
