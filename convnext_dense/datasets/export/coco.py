"""COCO: `annotations/instances_{train,val}.json` beside `train/` and `val/`; predictions all in `train`."""
from pathlib import Path

from ..convert.planning import PlannedSample
from ..convert.source import Source
from ..convert.writing import write_coco


def write(root: Path, source: Source, planned: list[PlannedSample], link: str) -> None:
    """Every key of images and annotations is kept, crowds included."""
    write_coco(root, source, planned, link)
