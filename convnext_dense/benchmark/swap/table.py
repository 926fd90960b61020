"""The table in the docs."""
from collections import Counter
from pathlib import Path

from ...mm.environment import versions
from ...utils.files import atomic_write
from .trial import Row

HEAD = """# Stock configs with our backbone

Written by `python tools/check_swap.py --out docs/swap.md`, which changes the rows of the folders that it tries and
keeps the others, with {versions}.

For every folder of stock configs that mmdet and mmseg bring: one config, with a ConvNeXt-atto instead of its backbone
and the `in_channels` of what reads its maps changed to fit (`convnext_dense/benchmark/swap/rules.py`). "Works" means:
the model builds, gives a finite loss with a gradient at the backbone's stem, and predicts, on made-up images and
targets; no accuracy is measured. The box regression of Sparse R-CNN and QueryInst is scaled down first: untrained, it
moves boxes out of the image, and mmdet 3.3.0 cannot paste masks of such boxes on a CPU. {summary}

How to do the same in a config of your own: [backbone.md](backbone.md#in-a-config-of-your-own).
"""


def write_table(rows: list[Row], path: Path) -> None:
    """Write docs/swap.md; rows of a table that is there already stay unless ``rows`` has their folder."""
    found = {(row.package, row.folder): row for row in read_table(path) + rows}
    rows = [found[name] for name in sorted(found)]
    installed = ', '.join(f'{name} {version}' for name, version in versions().items()
                          if name == 'torch' or 'mmdet' in name or 'mmseg' in name)
    counts = Counter(row.outcome for row in rows)
    summary = f'{len(rows)} folders: ' + ', '.join(f'{n} {outcome}' for outcome, n in counts.most_common()) + '.'
    with atomic_write(path) as part:
        part.write_text(HEAD.format(versions=installed, summary=summary) + ''.join(
            _section(package, [row for row in rows if row.package == package])
            for package in dict.fromkeys(row.package for row in rows)), 'utf-8')


def read_table(path: Path) -> list[Row]:
    """The rows of a table that :func:`write_table` wrote; none where there is no file."""
    rows, package = [], ''
    for line in path.read_text('utf-8').splitlines() if path.is_file() else ():
        if line.startswith('## '):
            package = line[3:]
        cells = [cell.strip() for cell in line.split('|')[1:-1]]
        if len(cells) == 4 and cells[0] not in ('folder', '---'):
            outcome, _, reason = cells[1].partition(': ')
            rows.append(Row(package, cells[0], cells[2], outcome, reason, cells[3]))
    return rows


def _section(package: str, rows: list[Row]) -> str:
    lines = [f'\n## {package}\n', '| folder | outcome | config | instead of |', '| --- | --- | --- | --- |']
    lines += [f'| {row.folder} | {row.outcome}{": " if row.reason else ""}{row.reason.replace("|", "/")} '
              f'| {row.config} | {row.replaced} |' for row in rows]
    return '\n'.join(lines) + '\n'
