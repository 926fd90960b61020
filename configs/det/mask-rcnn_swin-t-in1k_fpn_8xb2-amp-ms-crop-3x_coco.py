# The ConvNeXt-T recipe with Swin-T in its place. Published with Swin's own optimizer settings: 46.0 box, 41.6 mask AP
# (ConvNeXt paper, COCO table). Swin has no layer decay; weight decay spares the parameters that ConvNeXt's recipe does.
_base_ = './mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'

checkpoint = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth'
model = dict(
    backbone=dict(
        _delete_=True, type='SwinTransformer', embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24),
        drop_path_rate=0.2, convert_weights=True, init_cfg=dict(type='Pretrained', checkpoint=checkpoint)))
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(
        _delete_=True, flat_decay_mult=0.0, custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0))))
