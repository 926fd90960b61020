"""Our AP and mIoU timed beside pycocotools and mmseg on the same inputs."""
import argparse

HELP = 'our AP and mIoU beside pycocotools and mmseg on the same inputs'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure; returns the figures and the table to print."""
    raise NotImplementedError('written next')
