"""Downloads against a local server that breaks in every way: nothing partial is ever taken for a whole file."""
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
import torch
from safetensors.torch import save_file
from toy import ARCH

from convnext_dense.checkpoints import downloads, load_checkpoint, read_checkpoint, zoo
from convnext_dense.errors import UserError
from convnext_dense.models import ConvNeXt


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``; ``server.cut`` are the numbers of bytes after which the next answers break off."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        server = self.server
        server.seen.append((self.path, self.headers.get('Range')))
        if server.raw is not None:
            self.wfile.write(server.raw)
            self.close_connection = True
            return None
        content = server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = 0
        if self.headers.get('Range') and server.ranges:
            start = int(self.headers['Range'].removeprefix('bytes=').rstrip('-'))
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        else:
            self.send_response(200)
        if server.says_length:
            self.send_header('Content-Length', str(len(content) - start))
        self.send_header('Connection', 'close')
        self.end_headers()
        end = start + server.cut.pop(0) if server.cut else len(content)
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    torch.save({'model': ConvNeXt(ARCH).state_dict()}, tmp_path / 'weights.pth')
    content = (tmp_path / 'weights.pth').read_bytes()
    running = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    running.seen, running.cut, running.ranges, running.says_length = [], [], True, True
    running.raw = None
    running.content, running.root = content, f'http://127.0.0.1:{running.server_port}'
    running.url = running.root + '/weights.pth'
    running.files = {'/weights.pth': content}
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(downloads.time, 'sleep', lambda seconds: None)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def files_in(folder):
    return sorted(file.name for file in folder.rglob('*') if file.is_file())


def test_whole_file_once(server, tmp_path):
    model = ConvNeXt(ARCH)
    for _ in range(2):
        load_checkpoint(model, server.url)
    assert server.seen == [('/weights.pth', None)]
    assert files_in(tmp_path / 'hub') == ['weights.pth']
    assert downloads.cache_path(server.url).read_bytes() == server.content


def test_broken_transfer_is_resumed(server):
    server.cut = [1000, 5000]
    file = downloads.fetch(server.url)
    assert file.read_bytes() == server.content
    assert [asked for _, asked in server.seen] == [None, 'bytes=1000-', 'bytes=6000-']


def test_broken_transfer_is_resumed_in_a_later_run(server, tmp_path):
    server.cut = [1000, 0, 0]
    with pytest.raises(UserError, match=f'ended after 1000 of {len(server.content)} bytes') as error:
        load_checkpoint(ConvNeXt(ARCH), server.url)
    assert server.url in str(error.value) and str(downloads.cache_path(server.url)) in str(error.value)
    assert files_in(tmp_path / 'hub') == ['weights.pth.lock', 'weights.pth.part']
    server.seen.clear()
    assert downloads.fetch(server.url).read_bytes() == server.content
    assert server.seen == [('/weights.pth', 'bytes=1000-')]
    assert files_in(tmp_path / 'hub') == ['weights.pth']


def test_server_without_ranges_sends_all_again(server):
    server.ranges, server.cut = False, [1000]
    assert downloads.fetch(server.url).read_bytes() == server.content


def test_part_of_a_longer_file_starts_anew(server):
    part = downloads.cache_path(server.url).with_name('weights.pth.part')
    part.parent.mkdir(parents=True)
    part.write_bytes(b'x' * (len(server.content) + 5))
    assert downloads.fetch(server.url).read_bytes() == server.content


def test_length_must_be_known(server, tmp_path):
    server.says_length = False
    with pytest.raises(UserError, match='does not send the length'):
        downloads.fetch(server.url)
    assert files_in(tmp_path / 'hub') in ([], ['weights.pth.lock', 'weights.pth.part'])


def test_errors_of_the_server(server, tmp_path):
    with pytest.raises(UserError, match='404|Not Found') as error:
        read_checkpoint(server.root + '/other.pth')
    assert '\n' not in str(error.value) and len(server.seen) == 1  # no retries: the answer will not change
    server.files['/page.pth'] = b'<!DOCTYPE html><title>login</title>'
    with pytest.raises(UserError, match='web page'):
        read_checkpoint(server.root + '/page.pth')


def test_published_hash(server, tmp_path):
    right = hashlib.sha256(server.content).hexdigest()[:8]
    server.files = {f'/net-{right}.pth': server.content, '/net-deadbeef.pth': server.content}
    assert downloads.fetch(f'{server.root}/net-{right}.pth').read_bytes() == server.content
    with pytest.raises(UserError, match='does not have the hash deadbeef'):
        downloads.fetch(f'{server.root}/net-deadbeef.pth')
    assert [name for name in files_in(tmp_path / 'hub') if not name.endswith('.lock')] == [f'net-{right}.pth']


def test_same_name_from_two_places_is_two_files(server):
    server.files = {'/a/model.pth': b'a' * 100, '/b/model.pth': b'b' * 100}
    a, b = (downloads.fetch(f'{server.root}/{place}/model.pth') for place in 'ab')
    assert a.read_bytes() == b'a' * 100 and b.read_bytes() == b'b' * 100


def test_many_at_once_download_once(server, tmp_path):
    threads = [threading.Thread(target=downloads.fetch, args=(server.url,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.seen == [('/weights.pth', None)]
    assert files_in(tmp_path / 'hub') == ['weights.pth']


@pytest.mark.slow
def test_many_processes_at_once_download_once(server, tmp_path):
    code = ('import sys, torch; torch.hub.get_dir = lambda: sys.argv[2]; '
            'from convnext_dense.checkpoints import downloads; print(downloads.fetch(sys.argv[1]))')
    running = [subprocess.Popen([sys.executable, '-c', code, server.url, tmp_path / 'hub'], stdout=subprocess.PIPE,
                                text=True) for _ in range(3)]
    for process in running:
        out, _ = process.communicate()
        assert out.strip() == str(downloads.cache_path(server.url)) and process.returncode == 0
    assert server.seen == [('/weights.pth', None)]
    assert files_in(tmp_path / 'hub') == ['weights.pth']


def test_zoo_name_without_network(server, monkeypatch):
    def unreachable(request, timeout):
        raise urllib.error.URLError('Name or service not known')

    monkeypatch.setattr(urllib.request, 'urlopen', unreachable)
    model = ConvNeXt('tiny', init_cfg=dict(type='Pretrained', checkpoint='convnext_tiny_in22k'))
    with pytest.raises(UserError) as error:
        model.init_weights()
    place = os.path.join(torch.hub.get_dir(), 'checkpoints', 'convnext_tiny_22k_224.pth')
    assert str(error.value) == (
        'cannot download https://dl.fbaipublicfiles.com/convnext/convnext_tiny_22k_224.pth (Name or service not '
        f'known): put the file at {place} by hand, try again with a network, or do without '
        '(for a project: new_project --start random)')


def test_zoo_file_put_by_hand(server):
    weight = zoo.find('convnextv2_atto_fcmae')
    file = downloads.cache_path(weight.url)
    file.parent.mkdir(parents=True)
    file.write_bytes(server.content)
    assert read_checkpoint('convnextv2_atto_fcmae')['model'].keys() == ConvNeXt(ARCH).state_dict().keys()
    assert server.seen == []


def test_progress_starts_at_what_is_there(server, capsys):
    server.files = {'/big.bin': bytes(3 << 20)}
    part = downloads.cache_path(server.root + '/big.bin').with_name('big.bin.part')
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1 << 20))
    assert downloads.fetch(server.root + '/big.bin').read_bytes() == bytes(3 << 20)
    shown = capsys.readouterr().err.replace('\r', '\n').splitlines()
    assert next(line for line in shown if line).startswith('big.bin 1.05M/3.15M') and '3.15M/3.15M' in shown[-1]


def test_a_file_in_the_cache_is_not_read_to_check_its_hash(server, monkeypatch):
    """It was checked when it was downloaded; loading reads it once."""
    right = hashlib.sha256(server.content).hexdigest()[:8]
    server.files = {f'/net-{right}.pth': server.content}
    hashed = []
    monkeypatch.setattr(downloads, 'sha256', lambda file, sha256=downloads.sha256: hashed.append(file) or sha256(file))
    for _ in range(3):
        read_checkpoint(f'{server.root}/net-{right}.pth')
    assert len(hashed) == 1


@pytest.mark.parametrize('url', [
    'http://', 'http:///weights.pth', 'http://[::1/weights.pth', 'http://host:port/weights.pth', 'http://host:99999/a',
    'http://a..b/weights.pth', f'http://{"a" * 300}/w.pth', 'http://host/two words.pth', 'http://host/\x00.pth',
    'http://host/a\nHost: other', 'http://host/gewicht-ä.pth', 'https://.'])
def test_malformed_url(url, server):
    with pytest.raises(UserError, match='is no valid URL') as error:
        read_checkpoint(url)
    assert '\n' not in str(error.value) and server.seen == []


@pytest.mark.parametrize('path', ['/..', '/a/../..', '/' + 'x' * 600 + '.pth', '/', '/%2e%2e', '/a;b?c#d'])
def test_a_url_stays_in_its_folder(path, server, tmp_path):
    server.files = dict.fromkeys([path, path.partition('#')[0]], server.content)
    file = downloads.fetch(server.root + path)
    assert file.read_bytes() == server.content
    assert (tmp_path / 'hub/checkpoints') in file.resolve().parents


@pytest.mark.parametrize('answer', [
    b'', b'hello\r\n\r\n', b'HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc',
    b'HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc',
    b'HTTP/1.1 200 OK\r\nContent-Length: ' + b'9' * 50 + b'\r\n\r\n',
    b'HTTP/1.1 abc OK\r\n\r\n', b'HTTP/1.1 200 OK\r\n' + b'X: ' + b'y' * 70000 + b'\r\n\r\n',
    b'HTTP/1.1 200 OK\r\n' + b'X: y\r\n' * 200 + b'\r\n',
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc', b'\xff\xfe\x00\r\n\r\n',
    b'HTTP/1.1 302 Found\r\nLocation: http://[bad\r\n\r\n', b'HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n'])
def test_malformed_answer(answer, server):
    server.raw = answer
    with pytest.raises(UserError, match='cannot download') as error:
        read_checkpoint(server.url)
    assert '\n' not in str(error.value) and not downloads.cache_path(server.url).exists()


def test_hub_id_from_the_clients_own_cache(tmp_path):
    """The real client, offline, on a cache laid out as it lays it out: one file, and a sharded one."""
    pytest.importorskip('huggingface_hub')
    state = {key: value.contiguous() for key, value in ConvNeXt(ARCH).state_dict().items()}
    for repository, names in (('whole', ['model.safetensors']), ('broken', ['model.safetensors.index.json']),
                              ('sharded', ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'])):
        folder = tmp_path / f'hf/hub/models--someone--{repository}'
        snapshot = folder / 'snapshots/0123456789012345678901234567890123456789'
        snapshot.mkdir(parents=True)
        (folder / 'refs').mkdir()
        (folder / 'refs/main').write_text(snapshot.name)
        if repository == 'broken':
            (snapshot / names[0]).write_text('{"weight_map": [1]}')
            continue
        places = {key: names[i % len(names)] for i, key in enumerate(state)}
        for name in names:
            save_file({key: value for key, value in state.items() if places[key] == name}, snapshot / name)
        if repository == 'sharded':
            (snapshot / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': places}))
    code = """
import sys, torch
from convnext_dense.checkpoints import read_checkpoint
from convnext_dense.errors import UserError
torch.save([read_checkpoint(f'hf-hub:someone/{name}')['state_dict'] for name in ('whole', 'sharded')], sys.argv[1])
for name in ('someone/other', 'only-a-name', 'someone/whole@v9', 'someone/broken'):
    try:
        read_checkpoint('hf-hub:' + name)
    except UserError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, '-c', code, tmp_path / 'got.pth'], capture_output=True, text=True,
                          env={**os.environ, 'HF_HOME': str(tmp_path / 'hf'), 'HF_HUB_OFFLINE': '1'})
    assert done.returncode == 0, done.stderr[-3000:]
    for got in torch.load(tmp_path / 'got.pth', weights_only=True):
        assert got.keys() == state.keys() and all(torch.equal(got[key], state[key]) for key in state)
    errors = done.stdout.strip().splitlines()
    assert len(errors) == 4 and 'is no repository' in errors[1] and 'cannot get hf-hub:someone/broken' in errors[3]
    assert 'hf-hub:someone/other: the hub cannot be reached' in errors[0]
