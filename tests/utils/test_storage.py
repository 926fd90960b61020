"""Objects behind URLs: retries, errors in one sentence, and the same bytes with and without the cache."""
import json

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from mmengine import fileio
from mmengine.fileio.backends import LocalBackend, prefix_to_backends

from convnext_dense.datasets.coco_index import open_index
from convnext_dense.datasets.shard_writing import write_data_shards
from convnext_dense.errors import UserError
from convnext_dense.utils import data_source, storage


class FaultyFileSystem(MemoryFileSystem):
    """A store whose requests fail as often as they are told to."""
    protocol, cachable = 'faulty', False
    requests, errors = [], []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace('faulty://', 'memory://'))

    def cat_file(self, path, start=None, end=None, **kwargs):
        self.requests.append((path, start, end))
        if self.errors:
            raise self.errors.pop(0)
        return super().cat_file(path, start=start, end=end)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """``faulty://data``, with a folder of 12 images as it is and as shards; returns the folder and the waits."""
    fsspec.register_implementation('faulty', FaultyFileSystem, clobber=True)
    monkeypatch.setitem(storage.SCHEMES, 'faulty', None)
    monkeypatch.setitem(prefix_to_backends, 'faulty', prefix_to_backends['s3'])
    monkeypatch.setenv('CONVNEXT_DENSE_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(FaultyFileSystem, 'requests', [])
    monkeypatch.setattr(FaultyFileSystem, 'errors', [])
    data_source._recent.clear()
    waits = []
    monkeypatch.setattr(storage.time, 'sleep', waits.append)
    folder = tmp_path / 'data'
    (folder / 'train').mkdir(parents=True)
    for number in range(12):
        (folder / f'train/{number}.jpg').write_bytes(np.random.default_rng(number).bytes(100 + 700 * number))
    write_data_shards(folder, tmp_path / 'out', 10_000)
    root = f'data-{tmp_path.name}'
    for name, source in (('plain', folder), ('shards', tmp_path / 'out')):
        FaultyFileSystem().put(str(source), f'/{root}/{name}', recursive=True)
    return folder, f'faulty://{root}', waits


def test_the_same_bytes_from_everywhere_and_the_cache_spares_requests(store):
    folder, url, waits = store
    names = sorted(LocalBackend().list_dir_or_file(folder, list_dir=False, recursive=True))
    for kind in ('plain', 'shards'):
        assert data_source.list_files(f'{url}/{kind}/train') == [name.removeprefix('train/') for name in names]
        for _ in range(2):
            before = len(FaultyFileSystem.requests)
            assert {name: data_source.read_file(f'{url}/{kind}/{name}') for name in names} == \
                {name: (folder / name).read_bytes() for name in names}
        assert len(FaultyFileSystem.requests) == before  # all in the cache the second time
    assert not waits
    ranges = [end - start for path, start, end in FaultyFileSystem.requests if path.endswith('.tar')]
    assert sorted(ranges) == [512 + 100 + 700 * number for number in range(12)]  # a file and its header, no more


@pytest.mark.parametrize('kind', ['plain', 'shards'])
def test_a_server_that_fails_twice_is_asked_again(store, kind):
    folder, url, waits = store
    data_source.list_files(f'{url}/{kind}/train')
    FaultyFileSystem.requests.clear()
    FaultyFileSystem.errors[:] = [OSError(5, 'Input/output error'), TimeoutError('slow')]
    assert fileio.get(f'{url}/{kind}/train/7.jpg') == (folder / 'train/7.jpg').read_bytes()
    assert waits == [1, 2] and len(FaultyFileSystem.requests) >= 3


def test_retries_are_bounded_and_not_spent_on_what_cannot_pass(store):
    _, url, waits = store
    data_source.list_files(f'{url}/plain/train')
    FaultyFileSystem.errors[:] = [OSError(5, 'Input/output error')] * 9
    with pytest.raises(UserError, match=r'could not be read in 5 tries .*Input/output error'):
        storage.read_object(f'{url}/plain/train/1.jpg')
    assert waits == [1, 2, 4, 8] and len(FaultyFileSystem.errors) == 4
    waits.clear()
    forbidden = type('ClientResponseError', (Exception,), dict(status=403))('Forbidden')
    NoCredentialsError = type('NoCredentialsError', (Exception,), {})
    for error, words in ((FileNotFoundError('gone'), 'does not exist'), (PermissionError('denied'), 'bucket, and the'),
                         (forbidden, 'may not be read'), (OSError(22, 'Invalid bucket'), 'Invalid bucket'),
                         (NoCredentialsError('Unable to locate'), 'no credentials were found .Unable to locate')):
        FaultyFileSystem.errors[:] = [error]
        with pytest.raises(UserError, match=words):
            storage.read_object(f'{url}/plain/train/1.jpg')
    assert not waits


def test_missing_packages_schemes_objects_and_members_are_one_sentence(store, monkeypatch):
    _, url, _ = store
    with pytest.raises(UserError, match='the scheme ftp:// is not known'):
        data_source.is_folder('ftp://host/data')
    monkeypatch.setitem(storage.SCHEMES, 'gs', 'no_such_gcsfs')
    with pytest.raises(UserError, match='which is not installed: pip install no_such_gcsfs'):
        data_source.is_folder('gs://bucket/data')
    for name, words in (('plain/train/x.jpg', 'does not exist'), ('shards/train/x.jpg', r'have no file x\.jpg')):
        with pytest.raises(UserError, match=words):
            data_source.read_file(f'{url}/{name}')
    assert not data_source.is_folder(f'{url}/other') and data_source.is_folder(f'{url}/plain')
    with pytest.raises(UserError, match='expected 500 bytes from byte 0 on, found 100'):
        storage.read_object(f'{url}/plain/train/0.jpg', 0, 500)


def test_an_object_that_was_replaced_after_the_index_was_read(store):
    _, url, _ = store
    path = url.removeprefix('faulty:/') + '/shards/train/00000.tar'
    files = FaultyFileSystem()
    assert data_source.read_file(f'{url}/shards/train/1.jpg')
    files.pipe_file(path, files.cat_file(path)[512:])
    with pytest.raises(UserError, match=r'0\.jpg is not where the index says'):
        data_source.read_file(f'{url}/shards/train/0.jpg')
    files.pipe_file(path, b'short')
    with pytest.raises(UserError, match=r'00000\.tar: expected .* bytes from byte .* found 5: it ends early'):
        data_source.read_file(f'{url}/shards/train/0.jpg')
    files.pipe_file(path.replace('00000.tar', 'index.npy'), b'other')
    with pytest.raises(UserError, match=r'index\.npy does not belong to shards\.json'):
        data_source.find_shards.__globals__['Shards'](f'{url}/shards/train', json.dumps(
            json.loads(files.cat_file(path.replace('00000.tar', 'shards.json'))) | {'index.npy': 'x'}).encode())


def test_annotations_behind_a_url_are_read_once_per_version(store):
    _, url, _ = store
    files, file = FaultyFileSystem(), f'{url}/plain/annotations.json'
    content = dict(images=[dict(id=3, file_name='a.jpg', height=4, width=5)], annotations=[],
                   categories=[dict(id=1, name='cat')])
    for name in ('cat', 'dog'):
        content['categories'][0]['name'] = name
        files.pipe_file(file.removeprefix('faulty:/'), json.dumps(content).encode())
        assert json.loads(fileio.get_text(file)) == content  # what evaluators read
        for _ in range(2):
            index = open_index(file)
            assert index.categories == content['categories'] and index.image(0) == content['images'][0]
    files.pipe_file(file.removeprefix('faulty:/'), b'{"images": 3')
    with pytest.raises(UserError, match=f'{file}'):
        open_index(file)
