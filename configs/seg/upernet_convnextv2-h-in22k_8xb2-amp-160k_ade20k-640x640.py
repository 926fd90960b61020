# Published: 57.0 mIoU multi-scale (V2 paper, table 7), from weights after ImageNet-22K. Those that are published went
# through ImageNet-1K, too, at 384 or 512 pixels: the latter here. Swept settings as for V2-B.
_base_ = ['_base_/upernet_convnext.py', '_base_/ade20k_640x640.py', '_base_/schedule_160k.py', '_base_/runtime.py']

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        arch='huge', use_grn=True, layer_scale_init_value=0.0, drop_path_rate=0.4,
        init_cfg=dict(checkpoint='convnextv2_huge_in22k_ft_in1k_512')),
    decode_head=dict(in_channels=[352, 704, 1408, 2816]),
    auxiliary_head=dict(in_channels=1408),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(num_layers=12))
# The V2 paper's test scales. It does not say whether images are flipped; here they are, as in the V1 protocol.
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'][0] = [
    dict(type='Resize', scale=(int(2560 * r), int(640 * r)), keep_ratio=True) for r in (0.75, 0.875, 1.0, 1.125, 1.25)]
