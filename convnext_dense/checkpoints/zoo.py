"""The zoo: all weights that the official repositories publish, by names that configs can use.

ConvNeXt and ConvNeXt V2, and what others trained with the same network: DINOv3 and EUPE. Names are the official file
names with the dataset spelled out: ``in1k`` or ``in22k``, ``in22k_ft_in1k`` if fine-tuned on ImageNet-1K after 22K,
``fcmae`` if self-supervised, then the resolution unless it is 224. ``_ema`` marks EMA weights where plain ones are
published too; the dense recipes start from the plain ones. Fine-tuned detectors and segmentors have the names of their
recipes. Sources: tests/data/reference/published_weights.json and published_recipes.json, which also give resolution and
accuracy, and published_dinov3.json.
"""
from difflib import SequenceMatcher
from typing import NamedTuple

from ..errors import UserError

BASE_URL = 'https://dl.fbaipublicfiles.com/convnext/'
MIT = 'MIT (repository licence)'
NC = 'CC-BY-NC (weights, as the repository says)'
DINOV3_URL = 'https://dl.fbaipublicfiles.com/dinov3/'
DINOV3 = 'DINOv3 (https://ai.meta.com/resources/models-and-libraries/dinov3-license/)'
DINOV3_ACCESS = 'https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/'
EUPE_URL = 'https://huggingface.co/facebook/'
FAIR_NC = 'FAIR-NC (FAIR Noncommercial Research License)'


class Weight(NamedTuple):
    """A published file: name in the zoo, URL, what it is (all in official layout), licence of the weights.

    ``access`` is the page on which the licence is accepted, where the URL answers only after that, and ``hub`` the
    same weights on the Hugging Face hub, behind the same licence.
    """

    name: str
    url: str
    format: str
    licence: str
    access: str | None = None
    hub: str | None = None

    @property
    def noncommercial(self) -> bool:
        """Whether the licence excludes commercial use."""
        return self.licence in (NC, FAIR_NC)


# name, file below BASE_URL, what it is, licence. An isotropic network has one resolution: listed, since published,
# but no dense backbone can take it.
_TABLE = (
    ('convnext_base_in1k', 'convnext_base_1k_224.pth', 'classifier', MIT),
    ('convnext_small_in1k', 'convnext_small_1k_224.pth', 'classifier', MIT),
    ('convnext_tiny_in1k', 'convnext_tiny_1k_224.pth', 'classifier', MIT),
    ('convnext_tiny_in1k_ema', 'convnext_tiny_1k_224_ema.pth', 'classifier', MIT),
    ('convnext_small_in1k_ema', 'convnext_small_1k_224_ema.pth', 'classifier', MIT),
    ('convnext_base_in1k_ema', 'convnext_base_1k_224_ema.pth', 'classifier', MIT),
    ('convnext_base_in1k_384', 'convnext_base_1k_384.pth', 'classifier', MIT),
    ('convnext_large_in1k', 'convnext_large_1k_224_ema.pth', 'classifier', MIT),
    ('convnext_large_in1k_384', 'convnext_large_1k_384.pth', 'classifier', MIT),
    ('convnext_tiny_in22k', 'convnext_tiny_22k_224.pth', 'classifier', MIT),
    ('convnext_tiny_in22k_ft_in1k', 'convnext_tiny_22k_1k_224.pth', 'classifier', MIT),
    ('convnext_tiny_in22k_ft_in1k_384', 'convnext_tiny_22k_1k_384.pth', 'classifier', MIT),
    ('convnext_small_in22k', 'convnext_small_22k_224.pth', 'classifier', MIT),
    ('convnext_small_in22k_ft_in1k', 'convnext_small_22k_1k_224.pth', 'classifier', MIT),
    ('convnext_small_in22k_ft_in1k_384', 'convnext_small_22k_1k_384.pth', 'classifier', MIT),
    ('convnext_base_in22k', 'convnext_base_22k_224.pth', 'classifier', MIT),
    ('convnext_base_in22k_ft_in1k', 'convnext_base_22k_1k_224.pth', 'classifier', MIT),
    ('convnext_base_in22k_ft_in1k_384', 'convnext_base_22k_1k_384.pth', 'classifier', MIT),
    ('convnext_large_in22k', 'convnext_large_22k_224.pth', 'classifier', MIT),
    ('convnext_large_in22k_ft_in1k', 'convnext_large_22k_1k_224.pth', 'classifier', MIT),
    ('convnext_large_in22k_ft_in1k_384', 'convnext_large_22k_1k_384.pth', 'classifier', MIT),
    ('convnext_xlarge_in22k', 'convnext_xlarge_22k_224.pth', 'classifier', MIT),
    ('convnext_xlarge_in22k_ft_in1k', 'convnext_xlarge_22k_1k_224_ema.pth', 'classifier', MIT),
    ('convnext_xlarge_in22k_ft_in1k_384', 'convnext_xlarge_22k_1k_384_ema.pth', 'classifier', MIT),
    ('convnext_iso_small_in1k', 'convnext_iso_small_1k_224_ema.pth', 'isotropic', MIT),
    ('convnext_iso_base_in1k', 'convnext_iso_base_1k_224_ema.pth', 'isotropic', MIT),
    ('convnext_iso_large_in1k', 'convnext_iso_large_1k_224_ema.pth', 'isotropic', MIT),
    ('convnextv2_atto_fcmae', 'convnextv2/pt_only/convnextv2_atto_1k_224_fcmae.pt', 'FCMAE', NC),
    ('convnextv2_femto_fcmae', 'convnextv2/pt_only/convnextv2_femto_1k_224_fcmae.pt', 'FCMAE', NC),
    ('convnextv2_pico_fcmae', 'convnextv2/pt_only/convnextv2_pico_1k_224_fcmae.pt', 'FCMAE', NC),
    ('convnextv2_nano_fcmae', 'convnextv2/pt_only/convnextv2_nano_1k_224_fcmae.pt', 'FCMAE', NC),
    ('convnextv2_tiny_fcmae', 'convnextv2/pt_only/convnextv2_tiny_1k_224_fcmae.pt', 'FCMAE', NC),
    ('convnextv2_base_fcmae', 'convnextv2/pt_only/convnextv2_base_1k_224_fcmae.pt', 'FCMAE', NC),
    ('convnextv2_large_fcmae', 'convnextv2/pt_only/convnextv2_large_1k_224_fcmae.pt', 'FCMAE', NC),
    ('convnextv2_huge_fcmae', 'convnextv2/pt_only/convnextv2_huge_1k_224_fcmae.pt', 'FCMAE', NC),
    ('convnextv2_atto_in1k', 'convnextv2/im1k/convnextv2_atto_1k_224_ema.pt', 'classifier', NC),
    ('convnextv2_femto_in1k', 'convnextv2/im1k/convnextv2_femto_1k_224_ema.pt', 'classifier', NC),
    ('convnextv2_pico_in1k', 'convnextv2/im1k/convnextv2_pico_1k_224_ema.pt', 'classifier', NC),
    ('convnextv2_nano_in1k', 'convnextv2/im1k/convnextv2_nano_1k_224_ema.pt', 'classifier', NC),
    ('convnextv2_tiny_in1k', 'convnextv2/im1k/convnextv2_tiny_1k_224_ema.pt', 'classifier', NC),
    ('convnextv2_base_in1k', 'convnextv2/im1k/convnextv2_base_1k_224_ema.pt', 'classifier', NC),
    ('convnextv2_large_in1k', 'convnextv2/im1k/convnextv2_large_1k_224_ema.pt', 'classifier', NC),
    ('convnextv2_huge_in1k', 'convnextv2/im1k/convnextv2_huge_1k_224_ema.pt', 'classifier', NC),
    ('convnextv2_nano_in22k_ft_in1k', 'convnextv2/im22k/convnextv2_nano_22k_224_ema.pt', 'classifier', NC),
    ('convnextv2_nano_in22k_ft_in1k_384', 'convnextv2/im22k/convnextv2_nano_22k_384_ema.pt', 'classifier', NC),
    ('convnextv2_tiny_in22k_ft_in1k', 'convnextv2/im22k/convnextv2_tiny_22k_224_ema.pt', 'classifier', NC),
    ('convnextv2_tiny_in22k_ft_in1k_384', 'convnextv2/im22k/convnextv2_tiny_22k_384_ema.pt', 'classifier', NC),
    ('convnextv2_base_in22k_ft_in1k', 'convnextv2/im22k/convnextv2_base_22k_224_ema.pt', 'classifier', NC),
    ('convnextv2_base_in22k_ft_in1k_384', 'convnextv2/im22k/convnextv2_base_22k_384_ema.pt', 'classifier', NC),
    ('convnextv2_large_in22k_ft_in1k', 'convnextv2/im22k/convnextv2_large_22k_224_ema.pt', 'classifier', NC),
    ('convnextv2_large_in22k_ft_in1k_384', 'convnextv2/im22k/convnextv2_large_22k_384_ema.pt', 'classifier', NC),
    ('convnextv2_huge_in22k_ft_in1k_384', 'convnextv2/im22k/convnextv2_huge_22k_384_ema.pt', 'classifier', NC),
    ('convnextv2_huge_in22k_ft_in1k_512', 'convnextv2/im22k/convnextv2_huge_22k_512_ema.pt', 'classifier', NC),
    ('mask-rcnn_convnext-t-in1k', 'coco/mask_rcnn_convnext_tiny_1k_3x.pth', 'detector', MIT),
    ('cascade-mask-rcnn_convnext-t-in1k', 'coco/cascade_mask_rcnn_convnext_tiny_1k_3x.pth', 'detector', MIT),
    ('cascade-mask-rcnn_convnext-s-in1k', 'coco/cascade_mask_rcnn_convnext_small_1k_3x.pth', 'detector', MIT),
    ('cascade-mask-rcnn_convnext-b-in1k', 'coco/cascade_mask_rcnn_convnext_base_1k_3x.pth', 'detector', MIT),
    ('cascade-mask-rcnn_convnext-b-in22k', 'coco/cascade_mask_rcnn_convnext_base_22k_3x.pth', 'detector', MIT),
    ('cascade-mask-rcnn_convnext-l-in22k', 'coco/cascade_mask_rcnn_convnext_large_22k_3x.pth', 'detector', MIT),
    ('cascade-mask-rcnn_convnext-xl-in22k', 'coco/cascade_mask_rcnn_convnext_xlarge_22k_3x.pth', 'detector', MIT),
    ('upernet_convnext-t-in1k_ade20k-512x512', 'ade20k/upernet_convnext_tiny_1k_512x512.pth', 'segmentor', MIT),
    ('upernet_convnext-s-in1k_ade20k-512x512', 'ade20k/upernet_convnext_small_1k_512x512.pth', 'segmentor', MIT),
    ('upernet_convnext-b-in1k_ade20k-512x512', 'ade20k/upernet_convnext_base_1k_512x512.pth', 'segmentor', MIT),
    ('upernet_convnext-b-in22k_ade20k-640x640', 'ade20k/upernet_convnext_base_22k_640x640.pth', 'segmentor', MIT),
    ('upernet_convnext-l-in22k_ade20k-640x640', 'ade20k/upernet_convnext_large_22k_640x640.pth', 'segmentor', MIT),
    ('upernet_convnext-xl-in22k_ade20k-640x640', 'ade20k/upernet_convnext_xlarge_22k_640x640.pth', 'segmentor', MIT),
)
# size, first digits of the file's sha256 (facebookresearch/dinov3, dinov3/hub/backbones.py)
_DINOV3 = (('tiny', '21b726bb'), ('small', '296db49d'), ('base', '801f2ba9'), ('large', '61fa432d'))
WEIGHTS = {name: Weight(name, BASE_URL + file, format, licence) for name, file, format, licence in _TABLE}
for _size, _digits in _DINOV3:
    _name = f'dinov3_convnext_{_size}'
    WEIGHTS[_name] = Weight(_name, f'{DINOV3_URL}{_name}/{_name}_pretrain_lvd1689m-{_digits}.pth', 'DINOv3', DINOV3,
                            DINOV3_ACCESS, f'hf-hub:facebook/dinov3-convnext-{_size}-pretrain-lvd1689m')
for _size in ('tiny', 'small', 'base'):
    _file = f'EUPE-ConvNeXt-{_size[0].upper()}'
    WEIGHTS[f'eupe_convnext_{_size}'] = Weight(
        f'eupe_convnext_{_size}', f'{EUPE_URL}{_file}/resolve/main/{_file}.pt', 'EUPE', FAIR_NC)
_BY_URL = {weight.url: weight for weight in WEIGHTS.values()}


def names() -> list[str]:
    """All names, in the table's order."""
    return list(WEIGHTS)


def knows(url: str) -> bool:
    """Whether a URL is one of the zoo's."""
    return url in _BY_URL


def by_url(url: str) -> Weight | None:
    """The weight with that URL, or None."""
    return _BY_URL.get(url)


def find(name: str) -> Weight:
    """The published weight of that name.

    Raises:
        UserError: there is none; names the nearest ones.
    """
    if name not in WEIGHTS:
        raise UserError(f'{name!r} is neither a file nor a name in the zoo; nearest names: '
                        f'{", ".join(nearest(name))}')
    return WEIGHTS[name]


def nearest(name: str, count: int = 3) -> list[str]:
    """The names in the zoo that look most like ``name``."""
    return sorted(WEIGHTS, key=lambda known: -SequenceMatcher(None, name.lower(), known).ratio())[:count]
