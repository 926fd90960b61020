"""COCO annotations as an index on disk: built once per content of a json file, shared by all processes of a machine."""
import array
import hashlib
import json
import mmap
import os
import reprlib
import shutil
from pathlib import Path

import numpy as np
from filelock import FileLock
from mmengine.logging import print_log

from ..errors import UserError, few
from ..utils.data_source import local_file
from ..utils.files import atomic_write, cache_folder, written_whole
from ..utils.progress import progress_bar
from ..utils.shards import find_shards
from ..utils.storage import is_url, object_version
from .json_stream import stream_json
from .json_values import is_number

FORMAT = 1  # of the files below; another number is another folder
CHUNK = 2**20  # bytes hashed at a time
SMALL = 50 * 2**20  # bytes of a file that is indexed within two seconds, without a progress bar
REQUIRED = {'images': ('id', 'file_name', 'height', 'width'), 'categories': ('id', 'name'),
            'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area')}


class CocoIndex:
    """Images and annotations of a COCO json file, read one image at a time from an index on disk.

    Nothing is kept in memory but the open files. Numbers are mapped and text is read by position, so the pages are
    those of the system's file cache, and further processes that open the same index, or are forked, share them.

    Args:
        folder: as `open_index` builds it.

    Attributes:
        categories: the file's list of categories, as it is there.
        sizes: (images, 2), height and width in pixels.
        first: (images + 1), number of the first annotation of each image; annotations are numbered image by image, in
            the file's order inside an image.
        category: (annotations), position in `categories`; -1 where the id is not among them.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.categories = json.loads((self.folder / 'categories.json').read_bytes())
        self.sizes, self.first, self.category, self._start, self._length = (
            np.load(self.folder / f'{name}.npy', mmap_mode='r', allow_pickle=False)
            for name in ('sizes', 'first', 'category', 'start', 'length'))
        self._text = os.open(self.folder / 'text.json', os.O_RDONLY)
        if os.fstat(self._text).st_size != self._start[-1] or self._start.size != len(self) + 1:
            raise ValueError('the text is cut off')

    def __len__(self) -> int:
        return len(self.sizes)

    def __reduce__(self):
        return CocoIndex, (self.folder,)  # copies and workers open the files again instead of getting their content

    def __del__(self):
        if hasattr(self, '_text'):
            os.close(self._text)

    def image(self, number: int) -> dict:
        """The file's entry of an image."""
        return json.loads(os.pread(self._text, int(self._length[number]), int(self._start[number]) + 1))

    def annotated(self, number: int) -> tuple[dict, list[dict]]:
        """The file's entries of an image and of its annotations."""
        start, end = int(self._start[number]), int(self._start[number + 1])
        image, *annotations = json.loads(os.pread(self._text, end - start, start))
        return image, annotations

    def images_with(self, category_ids) -> np.ndarray:
        """(images) bool: whether an image has an annotation of one of the categories, crowds included."""
        wanted = np.array([entry['id'] in category_ids for entry in self.categories] + [False])  # the last is for -1
        hits = np.flatnonzero(wanted[self.category])
        found = np.zeros(len(self), bool)
        found[np.searchsorted(self.first, hits, side='right') - 1] = True
        return found


def open_index(ann_file: str | os.PathLike) -> CocoIndex:
    """Open the index of a COCO json file; it is built first where this content has none.

    Indexes lie in ``annotations/`` of the cache folder (`cache_folder`) under the SHA-256 of the file's content. Of
    several processes that ask at once, one builds and the others wait. A file behind a URL is read once per machine and
    version.

    Args:
        ann_file: a path or URL, also of a file in shards.

    Raises:
        UserError: the file is no COCO ground truth, an entry lacks a key or has a wrong value, it changed while it was
            read, or the index cannot be written.
    """
    if is_url(ann_file):
        return _open_remote(str(ann_file))
    with local_file(ann_file) as file:
        return _open_local(file)


def _open_remote(url: str) -> CocoIndex:
    version = object_version(url) if find_shards(url) is None else None
    folder = cache_folder() / 'annotations'
    known = folder / f'{version}.digest'  # has the digest of the content that this version of the object had
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{known}.lock'):
        if version is not None and known.is_file():
            index = _existing(folder / f'{known.read_text()[:32]}.{FORMAT}')
            if index is not None:
                return index
        with local_file(url) as file:
            try:
                index = _open_local(file)
            except UserError as error:
                raise UserError(str(error).replace(str(file), url)) from error
        if version is not None:
            if object_version(url) != version:
                raise UserError(f'{url} changed while it was read: start again when it is complete')
            with atomic_write(known) as part:
                part.write_text(index.folder.name)
    return index


def _open_local(ann_file: Path) -> CocoIndex:
    digest = _digest(ann_file)
    folder = cache_folder() / 'annotations' / f'{digest[:32]}.{FORMAT}'
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{folder}.lock'):
            return _existing(folder) or _build(ann_file, digest, folder)
    except OSError as error:
        raise UserError(f'the index of {ann_file} cannot be written to {folder} ({error.strerror or error}): make '
                        'space there, or set CONVNEXT_DENSE_CACHE to a folder on a local disk') from error


def _existing(folder: Path) -> CocoIndex | None:
    try:
        return CocoIndex(folder)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:  # what np.load and json raise
        print_log(f'{folder} is damaged ({error}) and is built again', logger='current')
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _build(ann_file: Path, digest: str, folder: Path) -> CocoIndex:
    entries = _Entries(ann_file)
    with written_whole(folder) as part:
        entries.write(part)
        if _digest(ann_file) != digest:
            raise UserError(f'{ann_file} changed while it was read: start again when it is complete')
    if ann_file.stat().st_size >= SMALL:
        print_log(f'{ann_file} is indexed in {folder}, for later runs too', logger='current')
    return CocoIndex(folder)


class _Entries:
    """Where the entries of a json file lie in it, as numbers: 32 bytes an annotation, besides the set of their ids.

    Raises:
        UserError: as of `open_index`.
    """

    def __init__(self, ann_file: Path):
        self.file, self.categories, self.lists = ann_file, [], set()
        self.images: dict[int, tuple[int, int, int, int]] = {}  # number -> offset, length, height, width
        self._image_numbers, self._category_numbers = {}, {}  # of ids, as they come: annotations may precede images
        self._annotation_ids = set()
        self._columns = {name: array.array('q') for name in ('offset', 'length', 'image', 'category')}
        add = {'images': self._add_image, 'annotations': self._add_annotation, 'categories': self._add_category}
        size = ann_file.stat().st_size
        with progress_bar(f'{ann_file.name} indexed', size, 'B', unit_scale=True, disable=size < SMALL) as bar:
            for number, element in enumerate(stream_json(ann_file)):
                if element.key in add:
                    self.lists.add(element.key)
                    add[element.key](self._checked(element), element.offset, element.length)
                if number % 1000 == 0:
                    bar.update(element.offset - bar.n)
        missing = [key for key in ('images', 'categories') if key not in self.lists]
        if missing:
            raise UserError(f'{ann_file}: expected COCO annotations, an object with entries in images and categories, '
                            f'found none in {few(missing)}: name the file that has the annotations of this data set')

    def _checked(self, element) -> dict:
        entry, key = element.value, element.key
        if not isinstance(entry, dict):
            raise self._wrong(element, f'is a {type(entry).__name__} instead of an object')
        for field in REQUIRED[key]:
            if field not in entry:
                raise self._wrong(element, f'has no {field!r}')
            if not _KINDS[field](entry[field]):
                raise self._wrong(element, f'has the {field} {reprlib.repr(entry[field])}')
        return entry

    def _wrong(self, element, what: str) -> UserError:
        name = element.value.get('id') if isinstance(element.value, dict) else None
        return UserError(f'{self.file}: entry {name} of {element.key!r} (byte {element.offset}) {what}: expected '
                         f'{few(REQUIRED[element.key])}, with the meaning they have in COCO; tools/check_dataset.py '
                         'lists every such entry')

    def _add_image(self, entry: dict, offset: int, length: int) -> None:
        number = self._image_numbers.setdefault(entry['id'], len(self._image_numbers))
        self.images[number] = offset, length, int(entry['height']), int(entry['width'])

    def _add_category(self, entry: dict, offset: int, length: int) -> None:
        self.categories.append(entry)

    def _add_annotation(self, entry: dict, offset: int, length: int) -> None:
        if entry['id'] in self._annotation_ids:
            raise UserError(f'{self.file}: two annotations have the id {entry["id"]}: give each its own')
        self._annotation_ids.add(entry['id'])
        image = self._image_numbers.setdefault(entry['image_id'], len(self._image_numbers))
        category = self._category_numbers.setdefault(entry['category_id'], len(self._category_numbers))
        for name, value in dict(offset=offset, length=length, image=image, category=category).items():
            self._columns[name].append(value)

    def write(self, folder: Path) -> None:
        """Write the files of the index: annotations of images that are not in the file are left out."""
        offset, length, image, category = (np.frombuffer(column, np.int64) for column in self._columns.values())
        image, category = self._positions(image, self._image_numbers, self.images), self._category_positions(category)
        order = np.argsort(image, kind='stable')
        order = order[np.count_nonzero(image < 0):]
        counts = np.bincount(image[order], minlength=len(self.images))
        first = np.concatenate([[0], np.cumsum(counts)])
        start = [0]
        with open(self.file, 'rb') as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as text, \
                open(folder / 'text.json', 'wb') as out:
            for number, (at, size, *_) in enumerate(self.images.values()):
                parts = [text[at:at + size]]
                parts += [text[offset[i]:offset[i] + length[i]] for i in order[first[number]:first[number + 1]]]
                start.append(start[-1] + out.write(b'[' + b','.join(parts) + b']\n'))
        of_images = np.array(list(self.images.values()), np.int64).reshape(-1, 4)
        for name, column in dict(sizes=of_images[:, 2:], first=first, category=category[order], start=start,
                                 length=of_images[:, 1]).items():
            np.save(folder / f'{name}.npy', np.ascontiguousarray(column, np.int64))
        (folder / 'categories.json').write_text(json.dumps(self.categories))

    def _category_positions(self, category: np.ndarray) -> np.ndarray:
        return self._positions(category, self._category_numbers,
                               {self._category_numbers.get(entry['id']): None for entry in self.categories})

    @staticmethod
    def _positions(numbers: np.ndarray, all_numbers: dict, listed: dict) -> np.ndarray:
        """Position in `listed` (keys are numbers, in order) of each number; -1 where it is not there."""
        table = np.full(len(all_numbers), -1, np.int64)
        for position, number in enumerate(listed):
            if number is not None:
                table[number] = position
        return table[numbers]


def _is_id(value) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _is_side(value) -> bool:
    return is_number(value) and value > 0


_KINDS = dict.fromkeys(('id', 'image_id', 'category_id'), _is_id) | dict(
    height=_is_side, width=_is_side, area=is_number, file_name=lambda value: isinstance(value, str) and value != '',
    name=lambda value: isinstance(value, str),
    bbox=lambda value: isinstance(value, list) and len(value) == 4 and all(map(is_number, value)))


def _digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    try:
        with open(path, 'rb', buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise UserError(f'annotations {path} cannot be read: {error.strerror}') from None
    return digest.hexdigest()
