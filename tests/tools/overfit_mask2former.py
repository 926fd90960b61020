# Mask2Former on ConvNeXt-atto, small enough to learn eight COCO images by heart in minutes on one core.
_base_ = ['../../configs/det/_base_/mask2former_convnext.py', './overfit_data.py']

width = 64
narrow = dict(embed_dims=width)
ffn = dict(embed_dims=width, feedforward_channels=2 * width)
model = dict(
    # zeros have no variance, which LayerNorm divides by; see mask-rcnn_convnext_fpn_small.py for this and the weights
    data_preprocessor=dict(pad_value=1.0),
    backbone=dict(
        arch='atto',
        init_cfg=dict(_delete_=True, type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in',
                      nonlinearity='linear', distribution='normal')),
    panoptic_head=dict(
        in_channels=[40, 80, 160, 320], feat_channels=width, out_channels=width, num_queries=20,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=8),
            encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=narrow, ffn_cfg=ffn)),
            positional_encoding=dict(num_feats=width // 2)),
        positional_encoding=dict(num_feats=width // 2),
        transformer_decoder=dict(
            num_layers=2, layer_cfg=dict(self_attn_cfg=narrow, cross_attn_cfg=narrow, ffn_cfg=ffn))),
    train_cfg=dict(num_points=1024))
