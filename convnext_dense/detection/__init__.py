"""Parts of mmdet's two-stage detectors, with boxes and losses in float32 under mixed precision.

Registered when one of mmdet's registries is first used. mmdet 2, which the official recipes ran on, kept these in
float32 (``force_fp32``); mmdet 3 computes them in the half type of the convolutions before them.
"""
