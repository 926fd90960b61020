"""torch.compile for all that a training step computes: one graph from images and targets to losses."""
from functools import partial

import torch
from torch import Tensor, nn

CUDA_GRAPHS = ('reduce-overhead', 'max-autotune')  # modes of torch.compile


def compile_losses(model: nn.Module, **options) -> bool:
    """Compile a model's whole ``loss``, in place, where its shapes do not depend on data.

    That is so for two-stage detectors with StaticRPNHead and StaticRoIHead or StaticCascadeRoIHead, and for mmseg's
    EncoderDecoder and what extends it without another ``loss``. Older torch, which cannot end a CUDA graph before NMS,
    compiles no detector in a mode with CUDA graphs.

    Args:
        model: a detector or segmentor, not wrapped.
        **options: of torch.compile.

    Returns:
        whether it was.
    """
    from mmdet.models.detectors import TwoStageDetector
    from mmseg.models import EncoderDecoder

    from ..detection.boxes import UNSAFE
    from ..detection.static_roi import StaticCascadeRoIHead, StaticRoIHead
    from ..detection.static_rpn import StaticRPNHead
    of_class = getattr(type(model), 'loss', None)
    if isinstance(model, EncoderDecoder) and of_class is EncoderDecoder.loss:
        model.loss = torch.compile(model.loss, **options)
        return True
    static = (isinstance(model, TwoStageDetector) and of_class is TwoStageDetector.loss
              and isinstance(model.rpn_head, StaticRPNHead)
              and isinstance(model.roi_head, StaticRoIHead | StaticCascadeRoIHead))
    if not static or (not UNSAFE and options.get('mode') in CUDA_GRAPHS):
        return False
    model.loss = CompiledDetectorLoss(model, **options)
    return True


class CompiledDetectorLoss:
    """In place of the ``loss`` of a two-stage detector with static heads.

    Every size of the images is a graph of its own; the number of objects, padded to powers of 2, is none.
    """

    def __init__(self, detector: nn.Module, **options):
        from ..detection.masked_norm import let_norms_count
        from ..detection.static_rpn import detector_losses, detector_truth
        let_norms_count(detector.roi_head)
        self.truth_of = partial(detector_truth, detector, few_shapes=True)
        self.losses = torch.compile(partial(detector_losses, detector), **options)

    def __call__(self, images: Tensor, samples: list) -> dict[str, Tensor]:
        """Losses of images (N, 3, H, W) with their data samples."""
        truth = self.truth_of(samples)
        # as tensors of their own, not parts of others whose shapes would count, too
        truth = truth._replace(boxes=truth.boxes.contiguous(), ignored=truth.ignored.contiguous())
        torch._dynamo.mark_static(images)
        for objects in (truth.boxes, truth.labels, truth.valid, truth.ignored, truth.ignored_valid):
            torch._dynamo.maybe_mark_dynamic(objects, 1)
        for bitmaps in truth.masks or ():
            torch._dynamo.maybe_mark_dynamic(bitmaps, 0)
            torch._dynamo.mark_static(bitmaps, 1)
            torch._dynamo.mark_static(bitmaps, 2)
        return self.losses(images, truth)
