"""Decode heads for mmseg; registered when one of its registries is first used."""
