"""Read large COCO json files element by element, so that memory does not grow with their size."""
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from ..utils.data_source import local_file

CHUNK = 2**20  # characters read at a time
BOM = '\xef\xbb\xbf'  # of UTF-8, read as latin-1; some Windows programs write it first
_BLANKS = re.compile(r'[\s,:]*')  # also what separates elements
_scan = json.JSONDecoder().raw_decode


class Element(NamedTuple):
    """One value of the top-level object, or one element where that value is a list.

    Args:
        key: the top-level key.
        value: parsed.
        offset, length: of the element's text in the file, in bytes.
    """
    key: str
    value: object
    offset: int
    length: int


def stream_json(path) -> Iterator[Element]:
    """Yield the values of a json object one at a time; of a list, its elements. An empty list yields nothing.

    Raises:
        UserError: the file cannot be read, is no json object, or is nested too deep for Python's parser (about 1000).
    """
    try:
        # one character is one byte, so offsets are true
        with local_file(path) as local, open(local, encoding='latin-1', newline='') as file:
            yield from _Reader(file).elements()
    except OSError as error:
        raise UserError(f'annotations {path} cannot be read: {error.strerror}') from None
    except (ValueError, RecursionError) as error:
        reason = 'nested too deep' if isinstance(error, RecursionError) else error
        raise UserError(f'{path} could not be read as JSON ({reason}): it is damaged or cut off; write or download it '
                        'again') from None


def read_element(path, offset: int, length: int) -> object:
    """The element that `stream_json` found there."""
    with open(path, 'rb') as file:
        file.seek(offset)
        return json.loads(file.read(length))


def looks_like_coco(path: Path) -> bool:
    """Whether a json file has COCO's `images` and `annotations`; searches its text, without parsing it."""
    return has_keys(path, 'images', 'annotations')


def has_keys(path: Path, *keys: str) -> bool:
    """Whether all of these are in a json file, in quotes; searches its text, without parsing it."""
    if not path.is_file():
        return False
    wanted = {f'"{key}"'.encode() for key in keys}
    tail = b''
    with open(path, 'rb') as file:
        while wanted and (chunk := file.read(CHUNK)):
            wanted -= {word for word in wanted if word in tail + chunk}
            tail = chunk[-16:]
    return not wanted


class _Reader:
    """A window on the file: `text[at:]` is still to be parsed, `before` counts the characters dropped so far."""

    def __init__(self, file):
        self.file, self.text, self.at, self.before, self.ended = file, '', 0, 0, False

    def elements(self) -> Iterator[Element]:
        self._read(CHUNK)
        if self.text.startswith(BOM):
            self.at = len(BOM)
        self._expect('{')
        while self._peek() != '}':
            key = self._value()[0]
            if not isinstance(key, str):
                raise ValueError(f'expected a key at character {self.before + self.at}')
            if self._peek() == '[':
                self.at += 1
                while self._peek() != ']':
                    yield Element(key, *self._value())
                self.at += 1
            else:
                yield Element(key, *self._value())
        self.at += 1
        if self._peek(optional=True):
            raise ValueError(f'unexpected text after the end, at character {self.before + self.at}')

    def _value(self) -> tuple[object, int, int]:
        self._peek()
        while True:
            try:
                value, end = _scan(self.text, self.at)
                if end < len(self.text) or self.ended:  # a number at the end of the window may be longer
                    break
            except json.JSONDecodeError as error:
                if self.ended:
                    raise ValueError(f'{error.msg} at character {self.before + error.pos}') from None
            self._read(max(CHUNK, len(self.text) - self.at))
        raw, offset = self.text[self.at:end], self.before + self.at
        self.at = end
        return (value if raw.isascii() else json.loads(raw.encode('latin-1'))), offset, len(raw)

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise ValueError(f'expected {character!r} at character {self.before + self.at}')
        self.at += 1

    def _peek(self, optional: bool = False) -> str:
        """The next character that is not blank; '' at the end if `optional`."""
        while True:
            self.at = _BLANKS.match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                if optional:
                    return ''
                raise ValueError('it ends too early')
            self._read(CHUNK)

    def _read(self, count: int) -> None:
        more = self.file.read(count)
        self.ended = not more
        self.text, self.before, self.at = self.text[self.at:] + more, self.before + self.at, 0
