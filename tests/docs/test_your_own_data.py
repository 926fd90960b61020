"""docs/your-own-data.md from top to bottom: its commands, on real data, with a network and images small enough to test.
"""
import json
import re
import shlex
import subprocess
import sys

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

SMALL = '--start random --image-size 64 --epochs 1'
SOURCES = {'det': ('PennFudanPed', 'pennfudan'), 'seg': ('CamVid', 'camvid')}
HEADINGS = {'det': '## Detection', 'seg': '## Segmentation'}


def commands(page: str, heading: str) -> list[str]:
    """The lines of the first bash block below a heading."""
    section = page[page.index(heading):]
    return re.search(r'```bash\n(.+?)```', section, re.S)[1].splitlines()


@pytest.mark.slow
@pytest.mark.parametrize('task', SOURCES)
def test_the_commands_of_the_page(task, real_data, repo_root, tmp_path):
    written, folder = SOURCES[task]
    lines = commands((repo_root / 'docs/your-own-data.md').read_text(), HEADINGS[task])
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line.replace(written, str(real_data / folder)))
        assert words[0] == 'python'
        tool = words[1]
        words = [sys.executable, str(repo_root / tool), *words[2:]]
        if 'new_project' in tool:
            words += shlex.split(SMALL)
        done = subprocess.run(words, cwd=tmp_path, text=True, capture_output=True)
        allowed = {0, 3} if 'check_dataset' in tool else {0}  # 3: warnings, which the page says to read
        assert done.returncode in allowed, f'{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'
        print(f'{line}\n{done.stdout[-400:] if "train" not in tool else ""}')
    name = re.search(r'data/(\w+)', lines[0])[1]
    info = json.loads((tmp_path / f'data/{name}/dataset.json').read_text())
    assert sum(split['images'] for split in info['splits'].values()) == {'det': 170, 'seg': 468}[task]
    page = (tmp_path / f'{name}.html').read_text()
    assert all(label in page for label in info['classes'])
