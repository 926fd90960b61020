"""Configs for new data sets."""
