"""Folders as tar shards: the same files, and everything that is wrong with shards is said, never followed."""
import io
import json
import os
import tarfile

import numpy as np
import pytest
from mmengine.fileio.backends import LocalBackend

from convnext_dense.cli import write_shards
from convnext_dense.datasets.shard_writing import index_shards, write_data_shards
from convnext_dense.errors import UserError
from convnext_dense.mm.data_backend import DiskBackend
from convnext_dense.utils import data_source
from convnext_dense.utils.shards import ENTRY, Shards, name_key

LONG = 'd' * 90 + '/' + 'e' * 120 + '.jpg'  # needs an extended header


@pytest.fixture
def folder(tmp_path):
    """A data set's folder: 20 images, one with a long name, one of no bytes, and annotations."""
    source = tmp_path / 'data'
    names = [f'train/{number:03}.jpg' for number in range(17)] + ['train/b/ä b.png', f'train/{LONG}', 'train/0.jpg']
    for number, name in enumerate(names):
        file = source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(np.random.default_rng(number).bytes(137 * number))
    (source / 'annotations').mkdir()
    (source / 'annotations/train.json').write_text('{}')
    (source / 'train/.hidden').write_text('')
    return source


@pytest.fixture
def shards(folder, tmp_path):
    """The shards of the folder's images."""
    assert write_data_shards(folder, tmp_path / 'out', 8000) == {'train': 20}
    return tmp_path / 'out/train'


def images(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob('*')
            if file.is_file() and file.name != '.hidden'}


def test_files_lists_and_bytes_are_those_of_the_folder(folder, shards):
    expected = images(folder / 'train')
    assert {name: data_source.read_file(shards / name) for name in expected} == expected
    for options in (dict(list_dir=False), dict(list_dir=False, suffix='.jpg'), dict(list_dir=False, recursive=True),
                    dict(recursive=True), dict(list_dir=False, recursive=True, suffix=('.png',)), dict()):
        listed = [sorted(backend.list_dir_or_file(root, **options))
                  for backend, root in ((LocalBackend(), folder / 'train'), (DiskBackend(), shards))]
        assert listed[0] == listed[1] and listed[0]
    assert (shards.parent / 'annotations/train.json').read_text() == '{}'
    for path in ('', '000.jpg', 'b', 'b/ä b.png', 'x.jpg', 'x'):
        for name in ('isfile', 'isdir', 'exists'):
            assert getattr(DiskBackend(), name)(shards / path) == getattr(LocalBackend(), name)(folder / 'train' / path)
    with pytest.raises(UserError, match=r'its shards have no file x\.jpg'):
        data_source.read_file(shards / 'x.jpg')
    assert not data_source.is_usable_file(shards / '000.jpg') and data_source.is_usable_file(shards / '001.jpg')


def test_any_tar_reader_finds_the_same_files(folder, shards):
    found = {}
    for shard in shards.glob('*.tar'):
        assert shard.stat().st_size <= 8000 + 2 * 10240  # tarfile fills up to records of 20 blocks
        with tarfile.open(shard) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}
    assert found == images(folder / 'train') and len(list(shards.glob('*.tar'))) > 3


def test_the_same_folder_gives_the_same_bytes(folder, shards, tmp_path):
    os.utime(folder / 'train/003.jpg', (1, 1))
    write_data_shards(folder, tmp_path / 'again', 8000)
    assert images(tmp_path / 'again') == images(shards.parent)


def test_nothing_is_left_of_shards_that_could_not_be_finished(folder, tmp_path, monkeypatch):
    def full(self, member, content):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(tarfile.TarFile, 'addfile', full)
    with pytest.raises(UserError, match='could not be written .No space left on device'):
        write_data_shards(folder, tmp_path / 'out', 8000)
    assert [file.name for file in tmp_path.iterdir()] == ['data']
    with pytest.raises(UserError, match='exists already'):
        write_data_shards(folder, folder, 8000)
    with pytest.raises(UserError, match='has no folder val'):
        write_data_shards(folder, tmp_path / 'out', 8000, ['val'])


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / 'out'
    write_shards.main([str(folder), str(out), '--size', '0.008'])
    assert f'{out}/train: 20 files in ' in capsys.readouterr().out
    before = images(out)
    write_shards.main([str(out / 'train'), '--index'])
    assert '20 files indexed' in capsys.readouterr().out and images(out) == before
    for wrong, words in (([str(folder)], 'takes SOURCE and OUT'), ([str(folder), str(out), '--index'], 'takes SOURCE'),
                         ([str(tmp_path / 'no'), str(out)], 'does not exist'), ([str(folder), str(out)], 'exists alr'),
                         ([str(folder), str(out), '--size', '0'], 'more than 0'),
                         ([str(folder / 'annotations'), str(tmp_path / 'x')], 'holds no images'),
                         ([str(folder), str(folder / 'x')], 'lies in')):
        with pytest.raises(UserError, match=words):
            write_shards.main(wrong)


def tar_with(file, *members: tarfile.TarInfo) -> None:
    with tarfile.open(file, 'w') as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, target: str = '') -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


@pytest.mark.parametrize('info, words', [
    (member('../a.jpg'), 'leads out'), (member('b/../../a.jpg'), 'leads out'), (member('/etc/a.jpg'), 'leads out'),
    (member('a\nb.jpg'), 'leads out'), (member('a.jpg', tarfile.SYMTYPE, target='/etc/passwd'), 'a link'),
    (member('a.jpg', tarfile.LNKTYPE, target='first.jpg'), 'a link'), (member('a.jpg', tarfile.CHRTYPE), 'a device'),
    (member('a.jpg', tarfile.FIFOTYPE), 'a device'), (member('./first.jpg'), 'two files are named first.jpg')])
def test_hostile_members_are_refused(tmp_path, info, words):
    tar_with(tmp_path / '0.tar', member('first.jpg', size=3), info)
    with pytest.raises(UserError, match=words):
        index_shards(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ['0.tar']


@pytest.mark.parametrize('cut', [100, 512, 1024, 1536, 2048, 2560])
def test_a_tar_that_ends_early_is_refused_wherever_it_ends(tmp_path, cut):
    tar_with(tmp_path / '0.tar', member('a.jpg', size=600), member('b.jpg', size=10))
    content = (tmp_path / '0.tar').read_bytes()
    (tmp_path / '0.tar').write_bytes(content[:cut])
    with pytest.raises(UserError, match=r'0\.tar .*ends early'):
        index_shards(tmp_path)


def test_compressed_and_changing_shards_are_refused(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / '0.tar', 'w:gz') as tar:
        tar.addfile(member('a.jpg', size=10), io.BytesIO(bytes(10)))
    with pytest.raises(UserError, match='compressed'):
        index_shards(tmp_path)
    tar_with(tmp_path / '0.tar', member('a.jpg', size=10))
    stock = tarfile.TarFile.extractfile

    def touched(self, info):
        os.utime(tmp_path / '0.tar', (1, 1))
        return stock(self, info)
    monkeypatch.setattr(tarfile.TarFile, 'extractfile', touched)
    with pytest.raises(UserError, match='changed while it was read'):
        index_shards(tmp_path)
    with pytest.raises(UserError, match='has no .tar files'):
        index_shards(tmp_path.parent)


def rewrite_index(folder, change) -> Shards:
    """The shards with an index that was changed by somebody who also corrects what depends on it."""
    index = np.load(folder / 'index.npy')
    change(index)
    np.save(folder / 'index.npy', index)
    return Shards(str(folder), (folder / 'shards.json').read_bytes())


def row(index, name: str):
    return index[index['key'] == name_key(name)]


def lie(index, **values) -> None:
    for key, value in values.items():
        index[key][index['key'] == name_key('005.jpg')] = value


@pytest.mark.parametrize('change, words', [
    (lambda index: lie(index, **{key: row(index, '006.jpg')[key] for key in ENTRY.names[1:]}), '006.jpg with .* is '),
    (lambda index: lie(index, start=row(index, '005.jpg')['start'] + 512), 'no file begins there|is there'),
    (lambda index: lie(index, length=row(index, '005.jpg')['length'] - 1), 'is there'),
    (lambda index: lie(index, crc=1), 'another checksum'),
    (lambda index: lie(index, header=0), 'no file begins there|no regular file|is there'),
    (lambda index: lie(index, header=1 << 20), 'outside of the shards'),
    (lambda index: lie(index, start=1 << 40), 'outside of the shards'),
    (lambda index: lie(index, shard=99), 'outside of the shards')])
def test_an_index_that_lies_is_found_out(shards, change, words):
    changed = rewrite_index(shards, change)
    with pytest.raises(UserError, match=f'005.jpg is not where the index says .*({words})'):
        changed.read('005.jpg')
    assert len(changed.read('007.jpg')) == 7 * 137


def test_damaged_shards_are_found_out(shards):
    opened = Shards(str(shards), (shards / 'shards.json').read_bytes())
    first = shards / '00000.tar'
    content = bytearray(first.read_bytes())
    name = '001.jpg'
    place = int(row(opened.index, name)['start'][0]) + 600
    content[place] ^= 1
    first.write_bytes(content)
    with pytest.raises(UserError, match='another checksum'):
        opened.read(name)
    first.write_bytes(content[:place])
    with pytest.raises(UserError, match='ends early'):
        opened.read(name)
    first.unlink()
    with pytest.raises(UserError, match=r'00000\.tar cannot be read'):
        opened.read(name)


class Evil:
    def __reduce__(self):
        return os.mkdir, ('evil',)


def test_an_index_never_runs_code_or_leads_elsewhere(shards, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    marker = json.loads((shards / 'shards.json').read_text())
    for name in ('../../data/secret.tar', '/etc/passwd', 'memory://x'):
        changed = {**marker, 'shards': [{**shard, 'name': name} for shard in marker['shards']]}
        with pytest.raises(UserError, match='lies in another folder'):
            Shards(str(shards), json.dumps(changed).encode())
    for wrong, words in ((b'{', 'damaged'), (b'[]', 'damaged'), (b'{"format": 9}', 'format 9'),
                         (b'[' * 100_000, 'damaged'), (json.dumps({**marker, 'members': 3}).encode(), 'length')):
        with pytest.raises(UserError, match=words):
            Shards(str(shards), wrong)
    names = (shards / 'names.txt').read_text()
    (shards / 'names.txt').write_text('a.jpg\n')
    with pytest.raises(UserError, match=r'names\.txt does not belong'):
        data_source.list_files(shards)
    (shards / 'names.txt').write_text(names)
    np.save(shards / 'index.npy', np.array([Evil()], object), allow_pickle=True)
    with pytest.raises(UserError, match='damaged folder of shards'):
        Shards(str(shards), json.dumps(marker).encode())
    assert not (tmp_path / 'evil').exists()
