"""One self-contained web page: tables, key metrics and pictures, all embedded."""
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Protocol

import cv2
import numpy as np

from ..utils.files import atomic_write
from .curves import COLOURS

_MIME = {b'\x89PNG': 'image/png', b'\xff\xd8\xff': 'image/jpeg'}

_NUMBER = ' class="number"'

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5a6470; --paper: #ffffff; --card: #f4f6f8; --line: #d9dee4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #9aa5b1; --paper: #14171b; --card: #1e2329; --line: #343b44; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0 0 .3rem; font-size: 1.6rem; line-height: 1.25; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.25rem; }
h3 { margin: 1.4rem 0 .4rem; font-size: 1rem; }
p { margin: .3rem 0 .8rem; max-width: 48rem; }
.soft, figcaption { color: var(--soft); }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); margin: 1rem 0; }
.card { background: var(--card); border-radius: .5rem; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th, td { overflow-wrap: break-word; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
.bars { margin: 1rem 0; columns: 24rem; column-gap: 2.5rem; }
.bar { display: grid; grid-template-columns: 10rem 1fr; gap: .5rem; align-items: center; padding: .1rem 0;
  break-inside: avoid; font-size: .9rem; }
.bar > span { line-height: 1.2; }
.bar > div { display: grid; grid-template-columns: 1fr 3rem; align-items: center; column-gap: .4rem; }
.bar b { font-weight: normal; text-align: right; line-height: 1.2; font-variant-numeric: tabular-nums; }
.bar i { display: block; height: .7rem; border-radius: .15rem; }
.bar div div { background: var(--card); }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--soft); }
pre { overflow-x: auto; background: var(--card); padding: .8rem; border-radius: .5rem; font-size: .8rem; }
.scroll, .pictures, .legend { margin: 1rem 0; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: 0; list-style: none; }
.legend i { display: inline-block; width: 1em; height: 1em; margin-right: .4em; border-radius: .2em;
  vertical-align: -.12em; }
.pictures { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.wide { grid-template-columns: minmax(0, 1fr); }
.panels { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 12.5rem), 1fr)); }
figure { margin: 0; min-width: 0; max-width: 52rem; }
.wide figure { max-width: none; }
figcaption { font-size: .9rem; }
img { display: block; width: 100%; height: auto; border-radius: .3rem; background: #fff; }
"""


class Block(Protocol):
    """A part of a page."""

    def html(self) -> str: ...


@dataclass
class Text:
    """A paragraph of plain text."""
    text: str

    def html(self) -> str:
        return f'<p>{escape(self.text)}</p>'


@dataclass
class KeyMetrics:
    """Large numbers with a line below each: (value, meaning) pairs."""
    entries: Sequence[tuple[str, str]]

    def html(self) -> str:
        cards = ''.join(f'<div class="card"><b>{escape(value)}</b><span>{escape(meaning)}</span></div>'
                        for value, meaning in self.entries)
        return f'<div class="cards">{cards}</div>'


@dataclass
class Table:
    """A table; cells that are int, float or None ("–", nothing to measure) are aligned right.

    Args:
        header: one text per column.
        rows: cells.
        decimals: of the floats.
        signed: indices of the columns whose floats carry a plus or minus sign, such as differences.
    """
    header: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    decimals: int = 3
    signed: Sequence[int] = ()

    def html(self) -> str:
        numeric = [bool(self.rows) and not any(isinstance(row[i], str) for row in self.rows)
                   for i in range(len(self.header))]
        head = ''.join(f'<th scope="col"{_NUMBER * number}>{escape(cell)}</th>'
                       for cell, number in zip(self.header, numeric, strict=True))
        body = ''.join(f'<tr>{"".join(self._cell(i, cell) for i, cell in enumerate(row))}</tr>' for row in self.rows)
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'

    def _cell(self, column: int, value: str | int | float | None) -> str:
        if isinstance(value, str):
            return f'<td>{escape(value)}</td>'
        return f'<td{_NUMBER}>{_number(value, self.decimals, column in self.signed)}</td>'


@dataclass
class Bars:
    """Horizontal bars, one row per name, in as many columns as the screen has room for.

    Args:
        series: names of the values in every row, one to seven.
        rows: (name, one value per series); None where there was nothing to measure.
        largest: value of a bar of full length.
        decimals: of the values.
    """
    series: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float | None]]]
    largest: float
    decimals: int = 1

    def html(self) -> str:
        legend = Legend([(name, _rgb(COLOURS[i])) for i, name in enumerate(self.series)]).html()
        return legend + f'<div class="bars">{"".join(self._row(*row) for row in self.rows)}</div>'

    def _row(self, name: str, values: Sequence[float | None]) -> str:
        bars = ''
        for value, colour in zip(values, COLOURS, strict=False):
            percent = 100 * min(1, max(0, (value or 0) / self.largest))
            bars += (f'<div><i style="width: {percent:.1f}%; background: {colour}"></i></div>'
                     f'<b>{_number(value, self.decimals)}</b>')
        return f'<div class="bar"><span>{escape(name)}</span><div>{bars}</div></div>'


@dataclass
class Details:
    """Blocks that are collapsed until the reader opens them."""
    summary: str
    blocks: Sequence[Block]

    def html(self) -> str:
        return (f'<details><summary>{escape(self.summary)}</summary>'
                f'{"".join(block.html() for block in self.blocks)}</details>')


@dataclass
class Code:
    """Preformatted text in a monospaced font."""
    text: str

    def html(self) -> str:
        return f'<pre>{escape(self.text)}</pre>'


@dataclass
class Heading:
    """A heading inside a section."""
    text: str

    def html(self) -> str:
        return f'<h3>{escape(self.text)}</h3>'


@dataclass
class Picture:
    """An encoded PNG or JPEG, with a caption and an alternative text."""
    data: bytes
    caption: str
    alt: str

    def html(self) -> str:
        return (f'<figure><img src="{data_uri(self.data)}" alt="{escape(self.alt)}">'
                f'<figcaption>{escape(self.caption)}</figcaption></figure>')


@dataclass
class Panels:
    """Titled pictures that belong together, beside each other where there is room and else below each other."""
    panels: Sequence[tuple[str, bytes]]
    caption: str

    def html(self) -> str:
        caption = escape(self.caption)
        inner = ''.join(f'<div>{escape(title)}<img src="{data_uri(data)}" alt="{escape(title)}, {caption}"></div>'
                        for title, data in self.panels)
        return f'<figure><div class="panels">{inner}</div><figcaption>{caption}</figcaption></figure>'


@dataclass
class Legend:
    """Class names with their colours: (name, RGB) pairs."""
    entries: Sequence[tuple[str, Sequence[int]]]

    def html(self) -> str:
        items = ''.join(f'<li><i style="background: rgb({r}, {g}, {b})"></i>{escape(name)}</li>'
                        for name, (r, g, b) in self.entries)
        return f'<ul class="legend">{items}</ul>'


@dataclass
class Pictures:
    """Pictures in as many columns as the screen has room for, or, `wide`, in one."""
    pictures: Sequence[Picture | Panels]
    wide: bool = False

    def html(self) -> str:
        kind = 'pictures wide' if self.wide else 'pictures'
        return f'<div class="{kind}">{"".join(picture.html() for picture in self.pictures)}</div>'


@dataclass
class Section:
    """A heading and what stands below it."""
    heading: str
    blocks: Sequence[Block] = field(default_factory=list)

    def html(self) -> str:
        return f'<section><h2>{escape(self.heading)}</h2>{"".join(block.html() for block in self.blocks)}</section>'


def render_page(title: str, lead: str, blocks: Sequence[Block]) -> str:
    """The whole HTML document, pictures and style embedded; it loads nothing from elsewhere."""
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
            f'<body><h1>{escape(title)}</h1><p class="soft">{escape(lead)}</p>\n'
            + '\n'.join(block.html() for block in blocks) + '\n</body></html>\n')


def write_text(path, text: str) -> None:
    """Write a text file whole or not at all, in UTF-8."""
    with atomic_write(path) as part:
        part.write_text(text, encoding='utf-8')


def encode_jpeg(image: np.ndarray, quality: int = 88) -> bytes:
    """Encode an RGB picture, uint8 (H, W, 3)."""
    options = (cv2.IMWRITE_JPEG_QUALITY, quality)
    ok, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise ValueError(f'OpenCV cannot encode a picture of shape {image.shape}')
    return data.tobytes()


def data_uri(data: bytes) -> str:
    """An encoded PNG or JPEG as a data URI."""
    for start, mime in _MIME.items():
        if data.startswith(start):
            return f'data:{mime};base64,{base64.b64encode(data).decode("ascii")}'
    raise ValueError(f'expected an encoded PNG or JPEG picture, found bytes that start with {data[:4]!r}')


def _number(value: int | float | None, decimals: int, signed: bool = False) -> str:
    if value is None:
        return '–'
    return f'{value:{"+" if signed else ""}.{decimals}f}' if isinstance(value, float) else str(value)


def _rgb(colour: str) -> tuple[int, ...]:
    """'#0072b2' as (0, 114, 178)."""
    return tuple(bytes.fromhex(colour[1:]))
