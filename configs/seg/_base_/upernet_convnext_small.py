# A narrow UPerNet and its schedule for small data from random weights, also on a CPU; tools/new_project.py uses it.
# What differs from the published recipe was measured on CamVid (docs/your-own-data.md).
_base_ = './upernet_convnext.py'

head = dict(channels=64, dropout_ratio=0.0)
model = dict(
    # Padding must not be zero. A region of zeros gives equal channels, which LayerNorm divides by sqrt(1e-6) in every
    # block: gradients overflowed float32 in the first iterations of the detector.
    data_preprocessor=dict(pad_val=1.0),
    backbone=dict(
        arch='atto',
        # The official small initial weights suit 300 epochs; with these, blocks contribute from the start.
        init_cfg=dict(_delete_=True, type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in',
                      nonlinearity='linear', distribution='normal')),
    decode_head=dict(in_channels=[40, 80, 160, 320], **head),
    auxiliary_head=dict(in_channels=160, **head))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.99), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0))
auto_scale_lr = dict(enable=False, base_batch_size=4)
randomness = dict(seed=0)
