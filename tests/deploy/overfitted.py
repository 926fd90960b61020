"""AP and mIoU of exported models beside those of the trained models, which have learned eight real images by heart.

Run as a script, it trains, exports and tests all architectures, backbones and formats and prints the table of
docs/deploy.md:

    python tests/deploy/overfitted.py --data ../shared/data
"""
import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import cv2

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / 'tools')]  # as a script, too
from test_overfit import SMALL_IMAGES, eight_images  # noqa: E402
from tool_runs import TOOL_TESTS, must_run  # noqa: E402

from convnext_dense.config import load_config  # noqa: E402
from convnext_dense.deploy.proof import Differences, compare  # noqa: E402
from convnext_dense.inference.predictor import Predictor  # noqa: E402
from convnext_dense.runtime import Predictor as Exported  # noqa: E402

HERE = Path(__file__).parent
CONFIGS = {
    'Faster R-CNN': HERE / 'overfit_faster.py', 'Mask R-CNN': TOOL_TESTS / 'overfit_coco.py',
    'Cascade Mask R-CNN': HERE / 'overfit_cascade.py', 'UPerNet': HERE / 'overfit_upernet.py'}
BACKBONES = {'V1': [], 'V2': ['model.backbone.use_grn=True', 'model.backbone.layer_scale_init_value=0.0']}
FORMATS = {'onnx': '.onnx', 'torch': '.pt2', 'openvino': '.xml'}
METRICS = ('coco/bbox_mAP', 'coco/segm_mAP', 'mIoU')
SIZES = ((160, 160), (160, 107), (90, 160), (200, 110), (155, 121))  # (width, height)


@dataclass
class Model:
    """A model that has learned eight images by heart.

    Args:
        config: file.
        options: of `tools/train.py`, `test.py` and `export.py`: data, backbone and size of images.
        checkpoint: trained weights.
        data_root: of train and test.
        images: files that it has learned.
        others: eight files, or fewer, of the same data set that it has not seen, to calibrate int8 with.
        folder: for what is written.
    """
    config: Path
    options: list
    checkpoint: Path
    data_root: Path
    images: list[Path]
    others: list[Path]
    folder: Path

    def metrics(self, weights: Path | None = None) -> dict[str, float]:
        """AP or mIoU in points, of the checkpoint or an exported model, by ``tools/test.py``."""
        weights = weights or self.checkpoint
        work_dir = self.folder / f'test_{weights.name}'
        must_run('test', self.config, weights, '--work-dir', work_dir, '--data-root', self.data_root,
                 '--cfg-options', *self.options, cwd=self.folder)
        found = json.loads((work_dir / 'metrics.json').read_text())
        return {name: found[name] * (1 if name == 'mIoU' else 100) for name in METRICS if name in found}

    def export(self, kind: str, *flags) -> tuple[Path, str]:
        """An exported model and what ``tools/export.py`` says of its differences."""
        file = self.folder / f'model{FORMATS[kind]}'
        found = must_run('export', self.config, self.checkpoint, '--to', kind, '--out', file, *flags, '--data-root',
                         self.data_root, '--images', *self.images, '--cfg-options', *self.options, cwd=self.folder)
        return file, found.out


def learn(name: str, backbone: str, data: Path, folder: Path, *more: str) -> Model:
    """Train one of `CONFIGS` with one of `BACKBONES` on eight images, with more options; not where that is done."""
    # one by one, as published: mmdet pads images of a batch to a common size, which changes what it finds
    config, options = CONFIGS[name], [*BACKBONES[backbone], 'test_dataloader.batch_size=1', *more]
    if name == 'UPerNet':
        root = data / 'ade/ADEChallengeData2016'
        images = sorted((root / 'images/validation').glob('*.jpg'))[:8]
        others = sorted((root / 'images/training').glob('*.jpg'))[:8]
    else:
        root, annotations = data / 'coco', folder / 'eight.json'
        chosen = set(eight_images(root / 'annotations/instances_train2017.json', annotations))
        images = [root / 'train2017' / image['file_name']
                  for image in json.loads(annotations.read_text())['images'] if image['id'] in chosen]
        others = sorted({*(root / 'train2017').glob('*.jpg')} - {*images})[:8]
        options += [*(f'{loader}_dataloader.dataset.ann_file={annotations}' for loader in ('train', 'val', 'test')),
                    *(f'{kind}_evaluator.ann_file={annotations}' for kind in ('val', 'test')), *SMALL_IMAGES]
    if not list(folder.glob('run/iter_*.pth')):
        must_run('train', config, '--work-dir', folder / 'run', '--data-root', root, '--cfg-options', *options,
                 cwd=folder)
    checkpoint = max(folder.glob('run/iter_*.pth'), key=lambda file: int(file.stem[5:]))
    return Model(config, options, checkpoint, root, images, others, folder)


def sizes_and_batches(model: Model, file: Path) -> Differences:
    """The largest differences between an exported model and the checkpoint at five sizes, in batches of 1 and 3."""
    cfg = load_config(str(model.config), model.options)
    trained = Predictor(cfg, model.checkpoint, device='cpu', score_thr=0, optimize=False)
    exported, seen = Exported(file, 'cpu', threads=1, score_thr=0), []
    images = [cv2.imread(str(image))[..., ::-1] for image in model.images[:3]]
    for size in SIZES:
        scaled = [cv2.resize(image, size) for image in images]
        expected = trained(scaled)
        seen += [compare(expected, exported(scaled, batch_size=batch)) for batch in (1, 3)]
    return largest(seen)


def largest(seen: list[Differences]) -> Differences:
    """The largest of several differences, and how much was compared in all."""
    values = {field.name: [getattr(each, field.name) for each in seen] for field in fields(Differences)}
    detections = values.pop('detections')
    images = values.pop('images')
    return Differences(**{name: max(found) for name, found in values.items()}, images=sum(images),
                       detections=None if None in detections else sum(detections))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='folder with coco/ and ade/')
    parser.add_argument('--only', nargs='+', choices=tuple(CONFIGS), default=tuple(CONFIGS), help='architectures')
    parser.add_argument('--folder', type=Path, help='for models, which are then not trained again')
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    print('| model | format | metric | trained | exported | largest difference, 5 sizes, batches of 1 and 3 |\n'
          '| --- | --- | --- | ---: | ---: | --- |')
    for name in args.only:
        for backbone in BACKBONES:
            own = folder / f'{name}_{backbone}'.replace(' ', '-')
            own.mkdir(parents=True, exist_ok=True)
            model = learn(name, backbone, args.data.resolve(), own.resolve())
            trained = model.metrics()
            for kind in FORMATS:
                file, _ = model.export(kind)
                seen = sizes_and_batches(model, file)
                for metric, value in model.metrics(file).items():
                    print(f'| {name}, {backbone} | {kind} | {metric} | {trained[metric]:.2f} | {value:.2f} | {seen} |',
                          flush=True)


if __name__ == '__main__':
    main()
