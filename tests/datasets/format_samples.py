"""A small scene with known boxes and masks, written as each labelling tool writes it."""
import base64
import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30
CLASSES = ['cat', 'sea lion', 'Zoë/../x']  # a space, letters beyond ASCII, and a path


@dataclass(frozen=True)
class Thing:
    """An object: its class, and an L-shaped outline, whose mask is known without any rasteriser.

    It fills (x, y, w, h) but for the upper right part beyond `a` columns, `b` rows high; 0 rows for a plain box.
    """
    name: str
    x: int
    y: int
    w: int
    h: int
    a: int = 0
    b: int = 0

    @property
    def box(self) -> list[int]:
        return [self.x, self.y, self.w, self.h]

    @property
    def mask(self) -> np.ndarray:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[self.y:self.y + self.h, self.x:self.x + self.w] = True
        mask[self.y:self.y + self.b, self.x + self.a:self.x + self.w] &= self.b == 0
        return mask

    @property
    def polygon(self) -> list[int]:
        left, top, right, bottom = self.x, self.y, self.x + self.w, self.y + self.h
        if not self.b:
            return [left, top, right, top, right, bottom, left, bottom]
        return [left, top, left + self.a, top, left + self.a, top + self.b, right, top + self.b, right, bottom, left,
                bottom]

    @property
    def points(self) -> list[list[int]]:
        return [list(pair) for pair in zip(self.polygon[::2], self.polygon[1::2], strict=True)]


SCENE: dict[str, list[Thing]] = {  # stem of an image -> its objects, which do not overlap
    'a b': [Thing('cat', 2, 3, 10, 8, 4, 3), Thing('cat', 20, 1, 6, 6, 2, 2), Thing('sea lion', 14, 15, 20, 10, 9, 5)],
    'Zoë': [Thing('Zoë/../x', 1, 1, 1, 1), Thing('sea lion', 5, 5, 30, 20, 10, 10)],
    'empty': [],
    'last': [Thing('cat', 30, 20, 10, 10, 5, 5)]}


def write_images(folder: Path, suffix: str = '.png') -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, stem in enumerate(SCENE):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{stem}{suffix}')


def write_json(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')


def voc(folder: Path, offset: int = 1) -> None:
    """Corners count from 1 and include the last pixel; `offset` 0: from 0."""
    write_images(folder / 'JPEGImages')
    (folder / 'Annotations').mkdir()
    for stem, things in SCENE.items():
        objects = ''.join(
            f'<object><name>{escape(t.name)}</name><difficult>{int(t.w == 1)}</difficult><bndbox><xmin>{t.x + offset}'
            f'</xmin><ymin>{t.y + offset}</ymin><xmax>{t.x + t.w}</xmax><ymax>{t.y + t.h}</ymax></bndbox></object>'
            for t in things)
        (folder / f'Annotations/{stem}.xml').write_text(
            f'<annotation><folder>x</folder><filename>{stem}.png</filename><size><width>{WIDTH}</width><height>'
            f'{HEIGHT}</height><depth>3</depth></size>{objects}</annotation>', encoding='utf-8')


def labelme(folder: Path) -> None:
    """Polygons; the first object of each image as a mask, the second in two parts of one group."""
    write_images(folder)
    for stem, things in SCENE.items():
        shapes = []
        for number, thing in enumerate(things):
            if number == 0:
                part = io.BytesIO()
                Image.fromarray(thing.mask[thing.y:thing.y + thing.h, thing.x:thing.x + thing.w]).save(part, 'PNG')
                shapes.append({'label': thing.name, 'shape_type': 'mask', 'group_id': None, 'points': [
                    [thing.x, thing.y], [thing.x + thing.w - 1, thing.y + thing.h - 1]],
                    'mask': base64.b64encode(part.getvalue()).decode()})
            elif number == 1:
                left, right, low, high = thing.x, thing.x + thing.w, thing.y + thing.b, thing.y + thing.h
                part = {'label': thing.name, 'group_id': 7}
                shapes += [{**part, 'shape_type': 'rectangle', 'points': [[left, thing.y], [left + thing.a, low]]},
                           {**part, 'shape_type': 'polygon',
                            'points': [[left, low], [right, low], [right, high], [left, high]]}]
            else:
                shapes.append({'label': thing.name, 'shape_type': 'polygon', 'group_id': None, 'points': thing.points})
        write_json(folder / f'{stem}.json', {
            'version': '5.4', 'flags': {}, 'shapes': shapes, 'imagePath': f'..\\photos\\{stem}.png', 'imageData': None,
            'imageHeight': HEIGHT, 'imageWidth': WIDTH})


def cvat(folder: Path) -> None:
    """Polygons, and masks for every second object."""
    write_images(folder / 'images/sub dir')
    labels = ''.join(f'<label><name>{escape(name)}</name><color>#0{n}ff00</color></label>'
                     for n, name in enumerate(CLASSES))
    images = ''
    for number, (stem, things) in enumerate(SCENE.items()):
        shapes = ''
        for place, thing in enumerate(things):
            points = ';'.join(f'{x}.00,{y}.00' for x, y in thing.points)
            part = thing.mask[thing.y:thing.y + thing.h, thing.x:thing.x + thing.w].ravel()
            ends = np.flatnonzero(np.diff(np.concatenate([[False], part, [not part[-1]]]).astype(int))).tolist()
            runs = np.diff([0, *ends]).tolist()
            shapes += (f'<polygon label={quoteattr(thing.name)} points="{points}" occluded="0"/>' if place % 2 == 0 else
                       f'<mask label={quoteattr(thing.name)} rle="{", ".join(map(str, runs))}" left="{thing.x}" '
                       f'top="{thing.y}" width="{thing.w}" height="{thing.h}"/>')
        images += (f'<image id="{number}" name={quoteattr(f"sub dir/{stem}.png")} width="{WIDTH}" height="{HEIGHT}">'
                   f'{shapes}</image>')
    (folder / 'annotations.xml').write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>{labels}'
        f'</labels></task></meta>{images}</annotations>', encoding='utf-8')


def supervisely(folder: Path) -> None:
    """Bitmaps, and polygons for every second object."""
    write_images(folder / 'ds0/img')
    write_json(folder / 'meta.json', {'classes': [{'title': name, 'shape': 'any', 'color': '#FF0000'}
                                                  for name in CLASSES]})
    for stem, things in SCENE.items():
        objects = []
        for place, thing in enumerate(things):
            if place % 2:
                objects.append({'classTitle': thing.name, 'geometryType': 'polygon',
                                'points': {'exterior': thing.points, 'interior': []}})
                continue
            part = io.BytesIO()
            Image.fromarray(thing.mask[thing.y:thing.y + thing.h, thing.x:thing.x + thing.w]).save(part, 'PNG')
            data = base64.b64encode(zlib.compress(part.getvalue())).decode()
            objects.append({'classTitle': thing.name, 'geometryType': 'bitmap',
                            'bitmap': {'data': data, 'origin': [thing.x, thing.y]}})
        write_json(folder / f'ds0/ann/{stem}.png.json', {
            'size': {'height': HEIGHT, 'width': WIDTH}, 'objects': objects})


def coco_content(file_name: str = '{}.png', first_category: int = 1) -> dict:
    """The scene as COCO json."""
    images, annotations = [], []
    for number, (stem, things) in enumerate(SCENE.items()):
        images.append({'id': number, 'file_name': file_name.format(stem), 'width': WIDTH, 'height': HEIGHT})
        annotations += [{'id': 100 * number + place, 'image_id': number, 'iscrowd': 0, 'bbox': thing.box,
                         'category_id': CLASSES.index(thing.name) + first_category, 'area': int(thing.mask.sum()),
                         'segmentation': [thing.polygon]} for place, thing in enumerate(things)]
    return {'images': images, 'annotations': annotations,
            'categories': [{'id': n, 'name': name} for n, name in enumerate(CLASSES, first_category)]}


def label_studio(folder: Path) -> None:
    """Label Studio's COCO export from Windows: ids from 0, backslashes, masks as polygons."""
    write_images(folder / 'images')
    write_json(folder / 'result.json', coco_content('images\\{}.png', first_category=0))


def cvat_coco(folder: Path) -> None:
    """CVAT's COCO export, with absolute Windows paths and a byte order mark."""
    write_images(folder / 'images/default')
    text = json.dumps(coco_content('C:\\Users\\me\\photos\\{}.png'), ensure_ascii=False)
    (folder / 'annotations').mkdir()
    (folder / 'annotations/instances_default.json').write_bytes(b'\xef\xbb\xbf' + text.replace(
        ', "', ',\r\n "').encode())


def roboflow(folder: Path) -> None:
    """A json per split beside its images, and a category above all others."""
    content = coco_content()
    content['categories'] = [{'id': 0, 'name': 'animals', 'supercategory': 'none'}] + [
        {**category, 'supercategory': 'animals'} for category in content['categories']]
    for split, numbers in (('train', (0, 1, 2)), ('valid', (3,)), ('test', ())):
        write_images(folder / split)
        write_json(folder / split / '_annotations.coco.json', {
            **content, 'images': [image for image in content['images'] if image['id'] in numbers],
            'annotations': [entry for entry in content['annotations'] if entry['image_id'] in numbers]})


def yolo(folder: Path) -> None:
    """Polygons, without any list of classes, with CRLF and a byte order mark."""
    write_images(folder / 'images')
    (folder / 'labels').mkdir()
    for stem, things in SCENE.items():
        lines = [' '.join([str(CLASSES.index(thing.name)), *(f'{x / WIDTH:.9g} {y / HEIGHT:.9g}' for x, y in
                                                              thing.points)]) for thing in things]
        (folder / f'labels/{stem}.txt').write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(lines).encode())


def dsb2018(folder: Path) -> None:
    """A folder per image, with a mask of 0 and 255 per object."""
    for number, (stem, things) in enumerate(SCENE.items()):
        (folder / f'stage1_train/{stem}/images').mkdir(parents=True)
        (folder / f'stage1_train/{stem}/masks').mkdir()
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(
            folder / f'stage1_train/{stem}/images/{stem}.png')
        for place, thing in enumerate(things):
            Image.fromarray(thing.mask.astype(np.uint8) * 255).save(
                folder / f'stage1_train/{stem}/masks/{place:04d}.png')


def cellpose(folder: Path) -> None:
    """Masks of 16 bits beside the images, and what Cellpose writes besides."""
    write_images(folder, '.tif')
    for stem, things in SCENE.items():
        ids = np.zeros((HEIGHT, WIDTH), np.uint16)
        for number, thing in enumerate(things):
            ids[thing.mask] = 300 + number
        Image.fromarray(ids).save(folder / f'{stem}_masks.tif')
        (folder / f'{stem}_seg.npy').write_bytes(b'never read')
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(folder / 'last_flows.tif')
