"""The published recipes as configs/{det,seg}/metafile.yml records them, and the tables made from those files."""
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml

from ..config.locations import CONFIGS
from ..errors import UserError

TASKS = ('det', 'seg')
BEGIN, END = '<!-- {} table, made by tools/update_tables.py from metafile.yml -->', '<!-- end of table -->'


@dataclass(frozen=True)
class Recipe:
    """One config of the tree that has an entry in a metafile.

    Attributes:
        name: short name; also the name of its fine-tuned weights in the zoo, where there are any.
        config: path from the package's root, ``configs/det/...py``.
        metrics: published metrics in per cent, by OpenMMLab's names ('box AP', 'mask AP', 'mIoU', 'mIoU(ms+flip)').
        weights: URL of the published fine-tuned weights, or None.
        note: where a metric comes from, or that none is published; empty for the papers' own entries.
    """
    name: str
    config: str
    task: str
    architecture: str
    method: str
    pretraining: str
    params: int | None
    flops: int | None
    metrics: dict[str, float]
    weights: str | None
    note: str

    @property
    def published(self) -> bool:
        """Whether it is an entry of the official model zoo, with weights to test."""
        return self.weights is not None


def load_recipes() -> list[Recipe]:
    """All recipes of both metafiles, in their order."""
    return [parse(model, task) for task in TASKS
            for model in yaml.safe_load((CONFIGS / task / 'metafile.yml').read_text())['Models']]


def parse(model: dict, task: str) -> Recipe:
    """A metafile's entry as a Recipe."""
    meta = model['Metadata']
    return Recipe(
        name=model.get('Alias', model['Name']), config=model['Config'], task=task, architecture=meta['Architecture'][0],
        method=model['In Collection'], pretraining=meta['Pretraining'], params=meta.get('Parameters (M)'),
        flops=meta.get('FLOPs (G)'), weights=model.get('Weights'), note=meta.get('Note', ''),
        metrics={key: value for result in model.get('Results', []) for key, value in result['Metrics'].items()})


def find_recipe(name: str) -> Recipe:
    """The published recipe of that short name or config name.

    Raises:
        UserError: there is none; names the nearest.
    """
    published = {recipe.name: recipe for recipe in load_recipes() if recipe.published}
    for recipe in published.values():
        if Path(name).stem in (recipe.name, Path(recipe.config).stem):
            return recipe
    near = get_close_matches(name, published, n=1, cutoff=0.3)
    raise UserError(f'{name} is not a published model-zoo entry' + (f'; the nearest one is {near[0]}' if near else '')
                    + f' (there are {len(published)}, see docs/recipes.md)')


def task_table(task: str) -> str:
    """Markdown table of a task's published entries, for its README."""
    metrics = ('box AP', 'mask AP') if task == 'det' else ('mIoU', 'mIoU(ms+flip)')
    lines = [f'| config | backbone | pretraining | params | FLOPs | {metrics[0]} | {metrics[1]} | weights |',
             '| --- | --- | --- | --- | --- | --- | --- | --- |']
    for recipe in load_recipes():
        if recipe.task == task and recipe.published:
            lines.append(f'| [{recipe.name}]({Path(recipe.config).name}) | {recipe.architecture} '
                         f'| {recipe.pretraining} | {recipe.params} M | {recipe.flops} G '
                         f'| {recipe.metrics[metrics[0]]} | {recipe.metrics[metrics[1]]} | [model]({recipe.weights}) |')
    return '\n'.join(lines)


def extra_table(task: str) -> str:
    """Markdown table of a task's configs beyond the official entries, each with its source."""
    lines = ['| config | backbone | metrics | source |', '| --- | --- | --- | --- |']
    for recipe in load_recipes():
        if recipe.task == task and not recipe.published:
            metrics = ', '.join(f'{value} {key}' for key, value in recipe.metrics.items()) or '-'
            lines.append(f'| [{Path(recipe.config).stem}]({Path(recipe.config).name}) | {recipe.architecture} '
                         f'| {metrics} | {recipe.note} |')
    return '\n'.join(lines)


def recipes_table() -> str:
    """Markdown table of all published entries with metrics, weights and config, for docs/recipes.md."""
    lines = ['| recipe | published | fine-tuned weights | config |', '| --- | --- | --- | --- |']
    for recipe in load_recipes():
        if recipe.published:
            metrics = ', '.join(f'{value} {key}' for key, value in recipe.metrics.items())
            file = Path(recipe.weights).name
            lines.append(f'| {recipe.name} | {metrics} | [{file}]({recipe.weights}) '
                         f'| [{recipe.task}](../{recipe.config}) |')
    return '\n'.join(lines)


def fill_tables(text: str, tables: dict[str, str]) -> str:
    """``text`` with the content between each table's markers replaced; UserError where the markers are missing."""
    for kind, table in tables.items():
        begin = BEGIN.format(kind)
        head, found, rest = text.partition(begin)
        _, ended, tail = rest.partition(END)
        if not found or not ended:
            raise UserError(f'the page has no place for the {kind} table: expected the lines {begin!r} and {END!r}')
        text = f'{head}{begin}\n{table}\n{END}{tail}'
    return text


def tables_of_pages() -> dict[str, dict[str, str]]:
    """The tables of each page, by the page's path from the repository's root."""
    return {**{f'configs/{task}/README.md': {'published': task_table(task), 'extra': extra_table(task)}
               for task in TASKS}, 'docs/recipes.md': {'published': recipes_table()}}
