"""Data behind s3:// on a server of this machine (moto), in the tools too; `make test-slow` installs what it needs."""
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_data_elsewhere import FOLDERS, RECIPES, compare
from tool_runs import (
    CONFIGS,
    ROOT,
    differing,
    free_port,
    iterations,
    launch,
    must_run,
    run_tool,
    tool_command,
    wait_for,
)

from convnext_dense.datasets.shard_writing import write_data_shards
from convnext_dense.errors import UserError
from convnext_dense.utils import data_source, storage

for package in ('s3fs', 'moto', 'flask_cors'):
    pytest.importorskip(package, reason=f'{package} is not installed: pip install "convnext-dense[test-s3]"')
pytestmark = pytest.mark.slow


class Server:
    """A moto server, which can be killed and started again; what it stores is gone then."""

    def __init__(self, log: Path):
        self.port, self.log, self.process = free_port(), log, None
        self.url = f'http://127.0.0.1:{self.port}'

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p', self.port],
                                        stdout=self.log.open('a'), stderr=subprocess.STDOUT)
        wait_for_port(self.port, self.process)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def wait_for_port(port: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(('127.0.0.1', int(port)), 1).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture(scope='module')
def environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('AWS_ACCESS_KEY_ID', 'tests')
        patch.setenv('AWS_SECRET_ACCESS_KEY', 'tests')
        patch.setenv('AWS_DEFAULT_REGION', 'us-east-1')
        yield patch


@pytest.fixture(scope='module')
def server(environment, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp('s3') / 'log')
    connect_to(server, environment)
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def own_cache(server, environment, tmp_path, monkeypatch):
    connect_to(server, environment)
    monkeypatch.setenv('CONVNEXT_DENSE_CACHE', str(tmp_path / 'cache'))


@contextmanager
def another(server: Server, environment, log: Path) -> Iterator[Server]:
    """A server of its own for a test that kills it; not started yet."""
    own = Server(log)
    try:
        connect_to(own, environment)
        yield own
    finally:
        own.kill()
        connect_to(server, environment)


def connect_to(server: Server, environment) -> None:
    import s3fs
    s3fs.S3FileSystem.clear_instance_cache()  # whose connections are to the server before
    environment.setenv('AWS_ENDPOINT_URL', server.url)


def upload(folder, bucket: str) -> str:
    import s3fs
    files = s3fs.S3FileSystem()
    files.makedirs(bucket, exist_ok=True)
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            files.pipe_file(f'{bucket}/data/{file.relative_to(folder)}', file.read_bytes())
    return f's3://{bucket}/data'


@pytest.mark.parametrize('task', RECIPES)
def test_real_samples_from_s3_equal_the_folders(task, server, real_data, tmp_path):
    folder = real_data / FOLDERS[task]
    write_data_shards(folder, tmp_path / 'shards', 4_000_000)
    places = [upload(tmp_path / 'shards', f'{task}-shards')]
    if task == 'seg':  # plain objects, which are listed too
        places.append(upload(folder, f'{task}-plain'))
    count = 10 if task == 'det' else 6
    assert compare(task, str(folder), places, count) == len(places) * 2 * count


def test_training_and_testing_on_s3_equal_those_on_the_folder(server, make_shapes, tmp_path):
    task = 'det'
    folder = make_shapes(12, 6) / 'coco'
    write_data_shards(folder, tmp_path / 'shards', 20_000)
    roots = {'folder': str(folder), 's3': upload(tmp_path / 'shards', f'train-{task}')}
    options = ['train_dataloader.num_workers=2', 'randomness.deterministic=True']
    for name, root in roots.items():
        must_run('train', CONFIGS[task], '--data-root', root, '--work-dir', tmp_path / name, '--cfg-options', *options)
    last = 'epoch_2.pth'
    assert differing(tmp_path / 'folder' / last, tmp_path / 's3' / last) == []
    metrics = [must_run('test', CONFIGS[task], tmp_path / 's3' / last, '--data-root', root, '--work-dir',
                        tmp_path / f'test-{name}').out for name, root in roots.items()]
    found = [re.findall(r'(?:bbox_mAP|segm_mAP): +[\d.-]+', out) for out in metrics]
    assert found[0] == found[1] and found[0]


def test_a_run_whose_server_dies_ends_in_one_sentence_and_resumes(server, environment, make_shapes, tmp_path):
    folder = make_shapes(12, 6) / 'ade'
    with another(server, environment, tmp_path / 'log') as own:
        own.start()
        root = upload(folder, 'bucket')
        arguments = [CONFIGS['seg'], '--data-root', root, '--work-dir', tmp_path / 'run', '--cfg-options',
                     'train_dataloader.num_workers=2', 'default_hooks.checkpoint.interval=2']
        log = tmp_path / 'out'
        process = launch(tool_command('train', *arguments, 'train_cfg.max_iters=4000', 'train_cfg.val_interval=4000'),
                         log, ROOT, CONVNEXT_DENSE_CACHE_GB='0')  # every image is asked for
        wait_for(r'Iter\(train\) \[ +6/4000\]', log, process)
        own.kill()
        assert process.wait(200) == 2, log.read_text()
        said = [line for line in log.read_text().splitlines() if line.startswith('error:')]
        assert len(said) == 1 and re.search(r's3://bucket/data/\S+ could not be read in 5 tries', said[0]), said
        assert 'Traceback' not in log.read_text()
        done = max(iteration for _, iteration in iterations(log.read_text()))
        own.start()
        upload(folder, 'bucket')
        resumed = must_run('train', *arguments, f'train_cfg.max_iters={done + 4}', f'train_cfg.val_interval={done + 4}',
                           '--resume')
        again = [iteration for _, iteration in iterations(resumed.out)]
        assert again[-1] == done + 4 and again[0] >= done - 3


def test_a_server_that_comes_back_costs_a_wait(server, environment, tmp_path, monkeypatch):
    waits = []
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/a.jpg').write_bytes(b'content')
    with another(server, environment, tmp_path / 'log') as own:
        def restarted(seconds):
            waits.append(seconds)
            if len(waits) == 2:
                own.start()
                upload(tmp_path / 'data', 'back')
        monkeypatch.setattr(storage, 'time', SimpleNamespace(sleep=restarted))
        assert storage.read_object('s3://back/data/a.jpg') == b'content'
    assert waits == [1, 2]


def test_wrong_buckets_names_and_credentials_are_one_sentence(server, environment, make_shapes, tmp_path, monkeypatch):
    root = upload(make_shapes(12, 6) / 'ade', 'right')
    for wrong in (root.replace('right', 'wrong'), root + '/missing'):
        error = run_tool('train', CONFIGS['seg'], '--data-root', wrong, '--work-dir', tmp_path / 'run').error
        assert f'data folder {wrong}/ does not exist' in error or f'data folder {wrong} does not exist' in error
    with pytest.raises(UserError, match=f'{root}/x.jpg does not exist'):
        data_source.read_file(f'{root}/x.jpg')
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
        monkeypatch.delenv(name)
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    monkeypatch.setenv('HOME', str(tmp_path))
    import s3fs
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match='no credentials were found'):
        storage.read_object(f'{root}/x.jpg')


def test_a_run_that_is_killed_leaves_a_cache_that_works(server, make_shapes, tmp_path, monkeypatch):
    root = upload(make_shapes(12, 6) / 'ade', 'killed')
    command = tool_command('train', CONFIGS['seg'], '--data-root', root, '--work-dir', tmp_path / 'run',
                           '--cfg-options', 'train_dataloader.num_workers=2', 'train_cfg.max_iters=400',
                           'train_cfg.val_interval=400')
    log = tmp_path / 'out'
    process = launch(command, log, ROOT)
    wait_for(r'Iter\(train\) \[ +2/400\]', log, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for name in data_source.list_files(f'{root}/images/training'):
        file = f'images/training/{name}'
        assert data_source.read_file(f'{root}/{file}') == (make_shapes(12, 6) / 'ade' / file).read_bytes()


def test_a_web_server_without_parts_of_files_is_said(server, tmp_path):
    (tmp_path / 'data/train').mkdir(parents=True)
    for name in ('a.jpg', 'b.jpg'):
        (tmp_path / 'data/train' / name).write_bytes(name.encode() * 1000)
    write_data_shards(tmp_path / 'data', tmp_path / 'web/shards', 10**6)
    (tmp_path / 'web/plain').symlink_to(tmp_path / 'data')
    port = free_port()
    command = [sys.executable, '-m', 'http.server', port, '--bind', '127.0.0.1', '-d', tmp_path / 'web']
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        url = f'http://127.0.0.1:{port}'
        assert data_source.read_file(f'{url}/plain/train/a.jpg') == b'a.jpg' * 1000  # whole files need no parts
        with pytest.raises(UserError, match=r'00000\.tar: expected 5512 bytes .* does not serve parts of files'):
            data_source.read_file(f'{url}/shards/train/a.jpg')
        with pytest.raises(UserError, match='c.jpg does not exist'):
            data_source.read_file(f'{url}/plain/train/c.jpg')
    finally:
        process.kill()
        process.wait()
