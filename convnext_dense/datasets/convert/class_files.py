"""Class lists: names on the command line, or a text, csv or json file with ids or colours."""
import json
import re
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short_repr

from ...errors import UserError
from ..json_values import is_integer

KNOWN_FILES = ('classes.txt', 'labels.txt', 'label_colors.txt', 'class_dict.csv', 'classes.json', 'obj.names')
VOID_NAMES = {'void', 'unlabelled', 'unlabeled', 'ignore', 'ignored'}  # taken as "no class" unless --ignore is given


@dataclass(frozen=True)
class ClassEntry:
    """One line of a class list: its name, its id in the source, and its RGB colour if it has one."""
    name: str
    id: int
    colour: tuple[int, int, int] | None = None


def find_class_file(root: Path) -> Path | None:
    """The class list that lies in a source's folder, if there is one."""
    return next((root / name for name in KNOWN_FILES if (root / name).is_file()), None)


def read_classes(text: str | None, root: Path) -> list[ClassEntry]:
    """The class list that `--classes` names, otherwise the one in `root`.

    Lines may be `name`, `id name`, `name r g b`, `r g b name` or `id name r g b`, separated by blanks or commas; ids
    count from 0 where there are none. Json may be a list of names or of {name, id, color}, or map names to ids or
    colours, or ids to names.

    Raises:
        UserError: there is no list, or a line that is none of these.
    """
    file = Path(text) if text else find_class_file(root)
    if file is None:
        raise UserError(f'{root} has no class list ({", ".join(KNOWN_FILES)}): give --classes a file, or the names '
                        'separated by commas')
    if not file.is_file():
        if file.suffix or '/' in str(text):
            raise UserError(f'--classes {text}: no such file; give a file, or the names separated by commas')
        return [ClassEntry(name.strip(), index) for index, name in enumerate(text.split(',')) if name.strip()]
    try:
        content = file.read_text(encoding='utf-8-sig')
        entries = _from_json(json.loads(content)) if file.suffix == '.json' else _from_lines(content)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, OSError) as error:
        raise UserError(f'{file} could not be read as a class list ({error}): expected lines such as `name`, '
                        '`id name`, `name r g b`, or json (docs/datasets.md)') from None
    if not entries:
        raise UserError(f'{file} names no class: expected one name per line')
    return entries


def split_ignored(entries: list[ClassEntry], ignore: tuple[str, ...]) -> tuple[list[ClassEntry], list[ClassEntry]]:
    """Divide a class list into (classes, ignored ones): by name or id, otherwise by the usual names for "no class".

    Raises:
        UserError: a name in `ignore` is not in the list.
    """
    known = {entry.name for entry in entries} | {str(entry.id) for entry in entries}
    for name in ignore:
        if name not in known and not name.isdigit():
            raise UserError(f'--ignore {name}: no such class; there are {", ".join(e.name for e in entries)}')

    def is_ignored(entry: ClassEntry) -> bool:
        if ignore:
            return entry.name in ignore or str(entry.id) in ignore
        return entry.name.casefold() in VOID_NAMES

    return [entry for entry in entries if not is_ignored(entry)], [entry for entry in entries if is_ignored(entry)]


def class_indices(entries: list[ClassEntry]) -> tuple[list[str], list[int]]:
    """Names without repetition, and for every entry the index of its name: lines with one name are one class."""
    index_of = {}
    indices = [index_of.setdefault(entry.name, len(index_of)) for entry in entries]
    return list(index_of), indices


def _from_lines(content: str) -> list[ClassEntry]:
    entries = []
    lines = [line.strip() for line in content.splitlines()]
    for line in lines:
        parts = [part for part in re.split(r'[\s,;]+', line) if part]
        if not parts or line.startswith('#') or [part.casefold() for part in parts] == ['name', 'r', 'g', 'b']:
            continue
        leading = next((i for i, part in enumerate(parts) if not part.isdigit()), len(parts))
        trailing = next((i for i, part in enumerate(reversed(parts)) if not part.isdigit()), len(parts))
        if leading == len(parts):
            raise ValueError(f'the line {short_repr(line)} has no name')
        colour = parts[-3:] if trailing >= 3 else parts[:3] if leading == 3 else None
        name = parts[leading:-3] if trailing >= 3 else parts[leading:]
        if leading not in (0, 1, 3) or (trailing >= 3 and leading == 3) or not name:
            raise ValueError(f'the line {short_repr(line)} has {leading} numbers before the name')
        number = int(parts[0]) if leading == 1 else len(entries)
        entries.append(ClassEntry(' '.join(name), number, _colour(colour)))
    return entries


def _from_json(content) -> list[ClassEntry]:
    if not isinstance(content, (list, dict)):
        raise ValueError(f'found {short_repr(content)}')
    entries = []
    for index, item in enumerate(content if isinstance(content, list) else content.items()):
        if isinstance(item, tuple) and isinstance(item[1], str):  # id: name
            entry = ClassEntry(item[1], int(item[0]))
        elif isinstance(item, tuple):  # name: id, or name: colour
            entry = (ClassEntry(item[0], item[1]) if is_integer(item[1]) else
                     ClassEntry(item[0], index, _colour(item[1])))
        elif isinstance(item, str):
            entry = ClassEntry(item, index)
        else:
            entry = ClassEntry(item['name'], int(item.get('id', index)), _colour(item.get('color', item.get('colour'))))
        if not isinstance(entry.name, str):
            raise ValueError(f'the name {short_repr(entry.name)} is no text')
        entries.append(entry)
    return entries


def _colour(values) -> tuple[int, int, int] | None:
    if values is None:
        return None
    red, green, blue = (int(value) for value in values)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f'the colour {red} {green} {blue} is outside 0 to 255')
    return red, green, blue
