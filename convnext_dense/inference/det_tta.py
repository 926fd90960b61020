"""Test-time augmentation of two-stage detectors, masks included."""
import torch
from mmdet.models.layers import multiclass_nms
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi, bbox_flip, bbox_mapping
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import Tensor, nn


@MODELS.register_module()
class InstanceTTAModel(BaseTTAModel):
    """Mask R-CNN and Cascade Mask R-CNN on several scaled and flipped views of each image.

    Proposals, scores and boxes are predicted in every view. The boxes of all views, mapped back to the image, go
    through one non-maximum suppression with the detector's settings. The masks of the boxes that are kept are
    predicted in every view, flipped back and averaged before they are pasted. One view without a flip is plain
    inference.

    mmdet's DetTTAModel merges boxes only. Arguments are BaseTTAModel's.
    """

    @torch.no_grad()
    def test_step(self, data: dict) -> list:
        """Data samples with merged ``pred_instances``, one per image.

        Args:
            data: of mmcv's TestTimeAug: ``inputs`` and ``data_samples``, each a list over views of lists over images.
        """
        model, views = self.module, []
        for inputs, samples in zip(data['inputs'], data['data_samples'], strict=True):
            view = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
            features, metas = model.extract_feat(view['inputs']), [sample.metainfo for sample in view['data_samples']]
            proposals = model.rpn_head.predict(features, view['data_samples'], rescale=False)
            # without a test config, boxes of all classes come back before suppression
            boxes = model.roi_head.predict_bbox(features, metas, proposals, rcnn_test_cfg=None, rescale=True)
            views.append((features, metas, boxes))
        return self.merge_preds([(sample, [(features, metas[index], boxes[index], index)
                                           for features, metas, boxes in views])
                                 for index, sample in enumerate(data['data_samples'][0])])

    def merge_preds(self, data_samples_list: list[tuple]) -> list:
        """Samples with merged predictions, from one (sample, views) per image; a view is (features of its batch, its
        metainfo, its boxes of all classes, index of the image in the batch)."""
        for sample, views in data_samples_list:
            boxes = torch.cat([unflip_boxes(found.bboxes, meta) for _, meta, found, _ in views])
            scores = torch.cat([found.scores for _, _, found, _ in views])
            sample.pred_instances = self._suppress(boxes, scores)
            if self.module.with_mask:
                self._add_masks(sample.pred_instances, views)
        return [sample for sample, _ in data_samples_list]

    def _suppress(self, boxes: Tensor, scores: Tensor) -> InstanceData:
        settings = self.module.roi_head.test_cfg
        found, labels = multiclass_nms(boxes, scores, settings.score_thr, settings.nms, settings.max_per_img)
        return InstanceData(bboxes=found[:, :4], scores=found[:, 4], labels=labels)

    def _add_masks(self, instances: InstanceData, views: list[tuple]) -> None:
        roi_head = self.module.roi_head
        head = roi_head.mask_head[-1] if isinstance(roi_head.mask_head, nn.ModuleList) else roi_head.mask_head
        masks = [mask_probabilities(roi_head, features, index, meta, instances.bboxes)
                 for features, meta, _, index in views] if len(instances) else [instances.bboxes]
        in_image = {**views[0][1], 'scale_factor': (1.0, 1.0)}
        head.predict_by_feat([torch.stack(masks).mean(0)], [instances], [in_image], roi_head.test_cfg, rescale=True,
                             activate_map=True)


def unflip_boxes(boxes: Tensor, meta: dict) -> Tensor:
    """Boxes (N, 4k) of a view, already at the image's scale, in the image."""
    return bbox_flip(boxes, meta['ori_shape'], meta['flip_direction']) if meta.get('flip') else boxes


def mask_probabilities(roi_head: nn.Module, features: tuple[Tensor], index: int, meta: dict, boxes: Tensor) -> Tensor:
    """Masks (N, classes, h, w), 0 to 1, of boxes (N, 4) of an image, predicted in one of its views."""
    in_view = bbox_mapping(boxes, meta['img_shape'], tuple(meta['scale_factor']) * 2, meta.get('flip', False),
                           meta.get('flip_direction'))
    rois = bbox2roi([in_view])
    rois[:, 0] = index
    if isinstance(roi_head.mask_head, nn.ModuleList):  # the stages of a cascade, averaged as in plain inference
        stages = [roi_head._mask_forward(stage, features, rois) for stage in range(roi_head.num_stages)]
    else:
        stages = [roi_head._mask_forward(features, rois)]
    masks = torch.stack([stage['mask_preds'].sigmoid() for stage in stages]).mean(0)
    if not meta.get('flip'):
        return masks
    return masks.flip({'horizontal': [-1], 'vertical': [-2], 'diagonal': [-2, -1]}[meta['flip_direction']])
