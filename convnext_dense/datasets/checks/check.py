"""The whole check: annotations as a stream, every image and label file once, then the splits against each other."""
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from ...utils.data_source import is_elsewhere, list_files
from .coco import CocoTables, CocoTarget, check_annotations, check_counts, read_tables
from .config_checks import check_whole_config
from .files import FileFacts, read_all
from .findings import Findings
from .labels import LabelCheck
from .targets import LabelTarget, Target

FILE_CODES = {problem: f'image-{problem}' for problem in ('missing', 'empty', 'unreadable', 'oversized', 'truncated')}


def check_dataset(targets: list[Target], workers: int, cfg: Config | None = None) -> Findings:
    """Check data sets and, where there is one, the config that reads them.

    Args:
        targets: from `targets_of_path` or `targets_of_config`.
        workers: processes that read files; 0 reads them in this one.
        cfg: the config itself, for the checks that need no data.
    """
    findings = Findings()
    if cfg is not None:
        check_whole_config(cfg, findings)
    tables = [_check_annotations(target, findings) if isinstance(target, CocoTarget) else None for target in targets]
    jobs = [_jobs(target, table) for target, table in zip(targets, tables, strict=True)]
    facts = read_all([job for part in jobs for job in part], workers)
    seen = {}
    for target, table in zip(targets, tables, strict=True):
        if isinstance(target, LabelTarget):
            _check_pairs(target, facts, seen, findings)
        elif table is not None:
            _check_images(target, table, facts, seen, findings)
    _check_unlisted(targets, tables, findings)
    _check_split_classes(targets, tables, findings)
    return findings


def _check_annotations(target: CocoTarget, findings: Findings) -> CocoTables | None:
    tables = read_tables(target, findings)
    if tables is not None:
        check_counts(target, tables, check_annotations(target, tables, findings), findings)
    return tables


def _jobs(target: Target, tables: CocoTables | None) -> list[tuple[str, bool]]:
    if isinstance(target, LabelTarget):
        return [(str(file), is_label) for pair in target.pairs for file, is_label in zip(pair, (False, True),
                                                                                        strict=True)]
    return [('' if name in tables.outside else str(target.image_folder / name), False)
            for name in tables.names] if tables else []


def _check_images(target: CocoTarget, tables: CocoTables, facts: Iterator[FileFacts], seen: dict,
                  findings: Findings) -> None:
    for row, (name, size) in enumerate(zip(tables.names, tables.sizes, strict=True)):
        file, found = target.image_folder / name, next(facts)
        if name in tables.outside:
            continue  # reported, and not read
        _check_image(file, found, target, seen, findings)
        if found.size is not None and found.size != size:
            findings.add('image-size', file, f'row {row + 1} of images',
                         f'{size[0]}x{size[1]} in {target.ann_file.name}, the file is read as '
                         f'{found.size[0]}x{found.size[1]}')


def _check_pairs(target: LabelTarget, facts: Iterator[FileFacts], seen: dict, findings: Findings) -> None:
    check = LabelCheck(target, findings)
    for image_file, label_file in target.pairs:
        image, label = next(facts), next(facts)
        _check_image(image_file, image, target, seen, findings)
        check.add(image, label_file, label)
        findings.checked['label maps'] += 1
    check.finish(target.pairs[0][1].parent if target.pairs else target.split)


def _check_image(file: Path, found: FileFacts, target: Target, seen: dict, findings: Findings) -> None:
    """Check an image file, and whether the same pixels were `seen` (digest -> (split, file)) before."""
    split = target.split
    findings.checked['images'] += 1
    if found.problem is not None:
        findings.add(FILE_CODES[found.problem], file)
        return
    if found.pages > 1:
        findings.add('image-pages', file, value=f'{found.pages} pages')
    _check_depth(file, found, target.value_range, findings)
    if found.orientation != 1:
        findings.add('image-rotated', file, value=f'orientation {found.orientation}')
    other_split, other = seen.setdefault(found.digest, (split, file))
    if other != file:
        findings.add('image-duplicate' if other_split == split else 'image-leak', file, value=f'the same as {other}')
    elif other_split != split:
        findings.add('image-leak', file, value=f'in {other_split} and {split}')


def _check_depth(file: Path, found: FileFacts, value_range: tuple[float, float] | None, findings: Findings) -> None:
    """Report values of more than 8 bits without a range, or on one side of it."""
    if found.depth == 'uint8':
        return
    if value_range is None:
        findings.add('image-depth', file, value=found.depth)
    elif found.spread is None or found.spread[1] <= value_range[0] or found.spread[0] >= value_range[1]:
        findings.add('image-value-range', file, value=f'{found.spread}, value_range {tuple(value_range)}')


def _check_unlisted(targets: list[Target], tables: list[CocoTables | None], findings: Findings) -> None:
    """Report files of image folders that no split lists; splits may share a folder."""
    listed = {}
    for target, table in zip(targets, tables, strict=True):
        if table is not None:
            listed.setdefault(target.image_folder, set()).update(table.names)
    for folder, names in listed.items():
        if is_elsewhere(folder):
            found = {name for name in list_files(folder) if '/' not in name}
        else:
            found = {file.name for file in folder.iterdir() if file.is_file()} if folder.is_dir() else set()
        extra = sorted(found - names)
        if extra:
            findings.add('image-unlisted', folder, f'{len(extra)} files', f'the first is {extra[0]}')


def _check_split_classes(targets: list[Target], tables: list[CocoTables | None], findings: Findings) -> None:
    named = [(target, set(table.categories.values())) for target, table in zip(targets, tables, strict=True) if table]
    for target, names in named[1:]:
        if names != named[0][1]:
            differing = sorted(names ^ named[0][1])
            findings.add('split-classes', target.ann_file, ', '.join(differing[:10]),
                         f'only in one of {target.split} and {named[0][0].split}')
