"""Write a config for your own data, fitted to it and to this machine."""
import argparse
from pathlib import Path

from .running import tool_line

# as in `projects`, which needs torch
ARCHITECTURES = ('atto', 'tiny', 'small', 'base', 'large', 'xlarge')
MODELS = ('mask-rcnn', 'mask2former', 'rtmdet', 'dino', 'retinanet', 'fcos', 'upernet')
STARTS = ('published', 'imagenet', 'random')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', help='new folder for config.py and, later, the run')
    parser.add_argument('--data', required=True, help='a converted data set, a COCO folder with train and '
                        'val, or a folder in another format that needs no options (docs/datasets.md)')
    parser.add_argument('--task', choices=['det', 'seg'], help='default: the task of the data')
    parser.add_argument('--model', choices=MODELS,
                        help='detector (mask-rcnn, mask2former, rtmdet, dino, retinanet, '
                        'fcos) or segmentor (upernet, mask2former); all but mask-rcnn and upernet are for --arch tiny, '
                        'from ImageNet weights (default: mask-rcnn, from --arch small on its cascade; upernet)')
    parser.add_argument('--arch', choices=ARCHITECTURES, help='backbone size (default: tiny; atto without a GPU)')
    parser.add_argument('--start', metavar='WEIGHTS', help=f'initial weights: {", ".join(STARTS)} (a published '
                        'detector or segmentor, a published classifier, none) or a checkpoint file (default: '
                        'published; atto: imagenet)')
    parser.add_argument('--image-size', type=int, metavar='PIXELS',
                        help='short side of the input (default: from the data)')
    parser.add_argument('--batch-size', type=int, help='images per step on one device (default: from the free memory)')
    parser.add_argument('--epochs', type=int, help='passes over the training images (default: from their number)')
    parser.add_argument('--fit', choices=['data', 'recipe'], default='data',
                        help='anchors, proposals and detections per image that fit the objects (data), or those of the '
                             'recipe (default: %(default)s)')
    parser.add_argument('--device', choices=['cuda', 'cpu'], help='device to train on (default: a GPU if there is one)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    import torch

    from ..datasets.direct import open_dataset
    from ..projects.choose import plan_project, write_project
    from ..projects.timing import estimate
    data, info, notes = open_dataset(Path(args.data), Path(args.folder, 'data'))
    chosen = plan_project(str(data), args.task, args.arch, args.start, args.image_size, args.batch_size, args.epochs,
                          args.device, args.fit == 'data', info, args.model)
    file = write_project(args.folder, chosen)
    model = f'{chosen.model} on ' if chosen.model else ''
    print(f'{file}: {model}ConvNeXt {chosen.arch} from {chosen.start}, {len(chosen.info.classes)} class(es), '
          f'input side {chosen.short}, {chosen.batch} images per step, {chosen.epochs} epochs = '
          f'{chosen.iterations} steps')
    for reason in (*notes, *chosen.reasons):
        print(f'  {reason}')
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if device == 'cpu' or torch.cuda.is_available():
        print(f'  {estimate(file, chosen, device)}')
    print('Next:')
    print(f'  {tool_line("check_dataset", file)}')
    print(f'  {tool_line("train", file)}')
