"""Timing and counting; used by tools/benchmark.py and tools/roadmap.py only."""
