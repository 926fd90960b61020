"""XML of labelling tools, read without entities: a kilobyte of them can stand for gigabytes, or for other files."""
import math
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ...errors import UserError, first_line

MAX_DEPTH = 30  # of nested elements; annotations have 5
MAX_BYTES = 2**29


def read_xml(file: Path) -> Element:
    """The root element of a file.

    Raises:
        UserError: it cannot be read, is larger than `MAX_BYTES`, declares an entity, or is nested too deep.
    """
    builder, depth = TreeBuilder(), 0

    def start(tag: str, attributes: dict) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise UserError(f'{file} is nested more than {MAX_DEPTH} elements deep, which no annotation is')
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(name: str, *_) -> None:
        raise UserError(f'{file} declares the XML entity {name!r}, which annotations do not need and which is not '
                        'read: remove its DOCTYPE')

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = builder.data, refuse
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UserError(f'{file} has more than {MAX_BYTES:,} bytes: divide it')
        with file.open('rb') as opened:
            parser.ParseFile(opened)
        return builder.close()
    except (OSError, expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{file} cannot be read as XML ({first_line(error)}): repair it, or write it again') from None


def first_tag(file: Path) -> str | None:
    """Name of the outermost element, None if the file does not start as XML."""
    found = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, _: found.append(tag)
    try:
        with file.open('rb') as opened:
            parser.Parse(opened.read(2**14), False)
    except (OSError, expat.ExpatError):
        pass
    return found[0] if found else None


def number(text: str | None) -> float:
    """A finite number.

    Raises:
        ValueError: the text is none.
    """
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError('value that is no finite number')
    return value
