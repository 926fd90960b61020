"""Data sets. Classes that extend mmdet or mmseg are imported when their registry is first used (see mm/patches.py)."""
