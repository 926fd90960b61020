"""Sliding-window inference with several windows in one forward pass."""
