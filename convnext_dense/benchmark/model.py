"""Latency of a whole model, split into its parts."""
import argparse

HELP = 'latency and throughput of a whole model, split into data, backbone, neck, heads and post-processing'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure; returns the figures and the table to print."""
    raise NotImplementedError('written next')
