"""Test-time augmentation of detectors, masks included."""
