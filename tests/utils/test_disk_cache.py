"""The cache of data from elsewhere: its bound, with several processes, and a disk that takes nothing."""
import errno
import multiprocessing
import os
import time

import numpy as np
import pytest

from convnext_dense.errors import UserError
from convnext_dense.utils.disk_cache import DiskCache, data_cache

LIMIT = 100_000


def content(number: int) -> bytes:
    return np.random.default_rng(number).bytes(1000 + 37 * number % 20_000)


def fill(folder, first: int) -> None:
    cache = DiskCache(folder, LIMIT)
    for number in range(first, first + 25):
        cache.put(str(number), content(number))
        stored = cache.get(str(number))
        assert stored in (None, content(number))  # another process may have removed it by now


def disk_use(folder) -> int:
    """Bytes of all entries, complete or not, in blocks as the file system counts them."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            if parent != str(folder):
                try:
                    total += -(-os.stat(os.path.join(parent, name)).st_size // 4096) * 4096
                except FileNotFoundError:
                    pass
    return total


def test_four_processes_never_take_more_than_the_bound(tmp_path):
    tmp_path = tmp_path / 'cache'
    processes = [multiprocessing.get_context('fork').Process(target=fill, args=(tmp_path, 15 * part))
                 for part in range(4)]
    for process in processes:
        process.start()
    sizes = []
    while any(process.is_alive() for process in processes):
        sizes.append(disk_use(tmp_path))
        time.sleep(0.002)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sum(len(content(number)) for number in range(70)) > 1.5 * LIMIT
    assert LIMIT / 2 < max(sizes) <= LIMIT and disk_use(tmp_path) > LIMIT / 2


def test_what_was_not_read_for_longest_goes_first(tmp_path):
    cache = DiskCache(tmp_path, 10 * 4096)
    for number in range(10):
        cache.put(str(number), b'x' * 4000)
        os.utime(cache._file(str(number)), (number, number))
    cache.get('0')
    cache.put('new', b'x' * 4000)
    left = {name for name in [*map(str, range(10)), 'new'] if cache.get(name)}
    assert {'0', 'new', '9'} <= left and '1' not in left


def test_a_killed_writer_leaves_nothing_that_counts_for_ever(tmp_path):
    cache = DiskCache(tmp_path, 10 * 4096)
    cache.put('a', b'a')
    part = cache._file('b').with_name('b.part')
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(bytes(30_000))
    (tmp_path / 'used').write_text(str(10 * 4096))  # reserved, and not written
    cache.put('c', b'c')
    assert not part.exists() and cache.get('a') == b'a' and cache.get('c') == b'c'
    assert int((tmp_path / 'used').read_text()) == 2 * 4096


def test_damaged_entries_are_misses_and_replaced(tmp_path):
    cache = DiskCache(tmp_path, 10**6)
    cache.put('a', b'content')
    cache._file('a').write_bytes(bytes(11))
    assert cache.get('a') is None
    cache.put('a', b'content')
    assert cache.get('a') == b'content'


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_said_once_and_reading_goes_on(tmp_path, monkeypatch, caplog, number):
    cache = DiskCache(tmp_path, 10**6)
    cache.put('a', b'a')

    def full(*args):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr(os, 'replace', full)
    cache.put('b', b'b')
    cache.put('c', b'c')
    assert [record.getMessage().count(os.strerror(number)) for record in caplog.records] == [1]
    assert cache.get('a') == b'a' and cache.get('b') is None and not list(tmp_path.glob('*/*.part'))


def test_the_bound_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv('CONVNEXT_DENSE_CACHE', str(tmp_path))
    monkeypatch.setenv('CONVNEXT_DENSE_CACHE_GB', '0.5')
    assert data_cache().limit == 500_000_000 and data_cache().folder == tmp_path / 'objects'
    monkeypatch.setenv('CONVNEXT_DENSE_CACHE_GB', '0')
    assert data_cache() is None
    for wrong in ('ten', '-1', 'nan', 'inf'):
        monkeypatch.setenv('CONVNEXT_DENSE_CACHE_GB', wrong)
        with pytest.raises(UserError, match=f'CONVNEXT_DENSE_CACHE_GB={wrong}: expected'):
            data_cache()
