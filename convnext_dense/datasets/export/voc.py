"""Pascal VOC: `JPEGImages/`, `Annotations/` with an XML file per image, and `ImageSets/Main/{train,val}.txt`."""
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from ..convert.planning import PlannedSample
from ..convert.source import Source
from .images import inside, objects_of, placed


def write(root: Path, source: Source, planned: list[PlannedSample], link: str) -> None:
    """Boxes only; corners count from 1 and include the last pixel."""
    names = {category['id']: category['name'] for category in source.categories}
    for folder in ('Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    lists, masks = {}, 0
    for entry, image in placed(planned, lambda split: root / 'JPEGImages', link):
        lists.setdefault(entry.split, []).append(image.stem)
        document = Element('annotation')
        SubElement(document, 'folder').text = 'JPEGImages'
        SubElement(document, 'filename').text = image.name
        _add(document, 'size', width=entry.size[0], height=entry.size[1], depth=3)
        for annotation in objects_of(entry, source):
            left, top, right, bottom = inside(annotation['bbox'], entry.size)
            if right <= left or bottom <= top:
                source.skipped.add('box outside its image', entry.sample.image)
                continue
            found = SubElement(document, 'object')
            SubElement(found, 'name').text = names[annotation['category_id']]
            SubElement(found, 'difficult').text = str(int(annotation.get('difficult') == 1))
            _add(found, 'bndbox', xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
            masks += bool(annotation.get('segmentation'))
        indent(document)
        ElementTree(document).write(root / f'Annotations/{image.stem}.xml', encoding='utf-8')
    for split, stems in lists.items():
        (root / f'ImageSets/Main/{split}.txt').write_text(''.join(f'{stem}\n' for stem in stems), encoding='utf-8')
    if masks:
        source.notes.append(f'{masks} masks are not written: Pascal VOC has boxes only')


def _add(parent: Element, tag: str, **values: float) -> None:
    element = SubElement(parent, tag)
    for key, value in values.items():
        SubElement(element, key).text = f'{value:.4f}'.rstrip('0').rstrip('.')
