"""The checker finds every planted fault, says nothing beyond what is truly there, and its tool behaves."""
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clean_copies import copy_of
from convert_sources import convert
from plant_faults import FAULTS, plant_all
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tool_runs import run_tool

from convnext_dense.datasets.checks.check import check_dataset
from convnext_dense.datasets.checks.codes import CODES
from convnext_dense.datasets.checks.segmentations import run_length_counts
from convnext_dense.datasets.checks.targets import targets_of_path

CLEAN_NOTES = {'category-ids'}  # COCO's ids 1 and 62; Penn-Fudan and CamVid have nothing


def check(path: Path, workers: int = 0):
    return check_dataset(targets_of_path(path), workers)


def names_it(finding, code: str, where: str) -> bool:
    return finding.code == code and where in f'{finding.file} {finding.id} {finding.value}'


def test_every_code_of_data_is_planted():
    config_codes = {code for code in CODES if code.startswith('norm-')} | {
        'config-refused', 'class-unknown', 'category-dropped', 'object-small', 'zero-is-class', 'ignore-as-class'}
    assert {fault.code for fault in FAULTS} == set(CODES) - config_codes
    print(f'{len(FAULTS)} faults of {len({fault.code for fault in FAULTS})} kinds')
    assert len(FAULTS) >= 40


@pytest.mark.parametrize('name, notes', [('coco', 2), ('pennfudan', 0), ('camvid', 0)])
def test_clean_copies_are_clean(name, notes, clean):
    assert [finding.code for finding in check(clean / name)] == notes * ['category-ids']


@pytest.mark.parametrize('number', range(len(FAULTS)),
                         ids=[f'{number}-{fault.code}' for number, fault in enumerate(FAULTS)])
def test_one_fault_is_found_and_nothing_else(number, clean, tmp_path):
    fault = FAULTS[number]
    copy = copy_of(clean / fault.base, tmp_path / 'copy')
    where = fault.plant(copy, 1)
    copy.save()
    findings = check(copy.folder)
    assert [finding for finding in findings if names_it(finding, fault.code, where)], list(findings)
    assert {finding.code for finding in findings} <= {fault.code, *fault.also} | CLEAN_NOTES
    assert findings.exit_status(strict=True) == max({'error': 4, 'warning': 3, 'note': 0}[CODES[finding.code][0]]
                                         for finding in findings)


@pytest.mark.parametrize('name', ['coco', 'pennfudan', 'camvid'])
def test_all_faults_together_are_found(name, clean, tmp_path):
    copy = copy_of(clean / name, tmp_path / 'copy')
    planted = plant_all(copy, name)
    findings = check(copy.folder, workers=2)
    missed = [(fault.code, where) for fault, where in planted
              if not any(names_it(finding, fault.code, where) for finding in findings)]
    print(f'{name}: {len(planted)} faults at once, {len(planted) - len(missed)} found')
    assert missed == []


CROWD_AREAS = [900100262148, 908400535506, 900100296649, 900100329323, 900100376322]


def test_real_sets_have_what_they_have(real_data):
    """COCO: crowds whose area is not their mask's; classes with fewer than 10 objects, counted by pycocotools."""
    findings = check(real_data / 'coco', workers=2)
    found = {}
    for finding in findings:
        found.setdefault(finding.code, []).append(finding)
    assert set(found) == {'area-mismatch', 'class-tiny', 'category-ids', 'image-without-objects'}
    cocos = {split: COCO(real_data / f'coco/annotations/instances_{split}2017.json') for split in ('train', 'val')}
    anns = cocos['train'].anns | cocos['val'].anns
    for finding, number in zip(found['area-mismatch'], CROWD_AREAS, strict=True):
        coco = cocos['train' if number in cocos['train'].anns else 'val']
        assert f'annotation {number} ' in finding.id and anns[number]['iscrowd']
        assert anns[number]['area'] > 1.25 * coco_mask.area(coco.annToRLE(anns[number]))
    few = {category['name'] for category in cocos['train'].cats.values()
           if len(cocos['train'].getAnnIds(catIds=category['id'])) < 10}
    assert {finding.id for finding in found['class-tiny']} == few
    empty = [sum(not coco.imgToAnns[image] for image in coco.imgs) for coco in cocos.values()]
    assert [finding.id for finding in found['image-without-objects']] == [f'{empty[0]} of 215 images',
                                                                         f'{empty[1]} of 206 images']
    assert findings.checked == {'annotations': 3821, 'images': 421}
    print(f'COCO subset: {len(findings)} findings, {findings.counts()}')
    assert list(check(real_data / 'pennfudan', workers=2)) == []


def test_camvid_as_it_is_and_converted(data_sets, tmp_path):
    raw = check(data_sets / 'camvid', workers=2)
    assert [(finding.code, finding.id) for finding in raw] == [('void-class', 'Unlabelled')] * 2
    convert(data_sets / 'camvid', tmp_path / 'out', '--link', 'symlink')
    assert list(check(tmp_path / 'out', workers=2)) == []


def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 200, 2)
        mask = (rng.random((height, width)) < rng.choice([0, 0.01, 0.5, 1])).astype(np.uint8)
        mask[:height // 2] ^= 1
        changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel('F'), [2]])))
        counts = run_length_counts(coco_mask.encode(np.asfortranarray(mask)))
        np.testing.assert_array_equal(counts, np.diff(np.concatenate([[0], changes])))


@pytest.mark.parametrize('name', ['coco', 'pennfudan', 'camvid'])
def test_repaired_annotations_have_no_error(name, clean, tmp_path):
    """All faults at once, `--fix`, and the repaired files checked with the same images."""
    copy = copy_of(clean / name, tmp_path / 'copy')
    planted = plant_all(copy, name)
    before = {file: file.read_bytes() for file in copy.folder.rglob('*') if file.is_file()}
    finished = run_tool('check_dataset', copy.folder, '--fix', tmp_path / 'fixed', '--workers', 0)
    assert finished.code == 4 and 'fixed: ' in finished.out
    assert before == {file: file.read_bytes() for file in copy.folder.rglob('*') if file.is_file()}
    assert len((tmp_path / 'fixed/changes.txt').read_text().splitlines()) >= len(planted) // 2
    if name == 'camvid':
        for file in (copy.folder / 'annotations/train').iterdir():
            file.unlink()
        for file in (tmp_path / 'fixed/annotations/train').iterdir():
            file.rename(copy.folder / 'annotations/train' / file.name)
    else:
        for split in ('train', 'val'):
            (tmp_path / f'fixed/instances_{split}.json').replace(copy.folder / f'annotations/instances_{split}.json')
    left = {finding.code for finding in check(copy.folder) if finding.severity == 'error'}
    cannot = {'coco': {'image-leak', 'split-classes', 'category-name', 'category-name-duplicate', 'image-size',
                       'file-name-duplicate'},
              'pennfudan': set(), 'camvid': {'image-leak', 'image-truncated', 'label-missing', 'label-size'}}
    assert left <= cannot[name]


def test_the_tool(clean, tmp_path):
    good = run_tool('check_dataset', clean / 'pennfudan', '--workers', 2)
    assert good.code == 0 and '10 images: 0 errors, 0 warnings, 0 notes' in good.out
    copy = copy_of(clean / 'coco', tmp_path / 'copy')
    plant_all(copy, 'coco')
    bad = run_tool('check_dataset', 'copy', '--json', 'found.json', '--workers', 0, cwd=tmp_path)
    content = json.loads((tmp_path / 'found.json').read_text())
    assert bad.code == 4 and f'{content["counts"]["error"]} errors' in bad.out
    assert len(content['findings']) == sum(content['counts'].values()) > 40
    assert {'severity', 'code', 'file', 'id', 'value'} == set(content['findings'][0])
    single = run_tool('check_dataset', clean / 'coco/annotations/instances_val.json', '--images', clean / 'coco/val')
    assert single.code == 0 and '4 images' in single.out


@pytest.mark.parametrize('arguments, expected', [
    (('nowhere',), 'nowhere does not exist'),
    (('.',), 'is not a known data set'),
    (('typo.py',), 'config typo.py does not exist'),
    (('.', '--workers', '-1'), '--workers -1'),
    (('.', '--fix', '.'), '--fix . exists already'),
    (('.', '--json', 'no/where.json'), 'its folder does not exist'),
])
def test_mistake_is_one_sentence(arguments, expected, tmp_path):
    assert expected in run_tool('check_dataset', *arguments, cwd=tmp_path).error


MILLION = '''
import json, sys
with open(sys.argv[1], 'w') as file:
    images = [{'id': i + 1, 'file_name': f'{i}.jpg', 'width': 640, 'height': 480} for i in range(20000)]
    file.write('{"images": ' + json.dumps(images) + ', "categories": [{"id": 1, "name": "thing"}], "annotations": [')
    for i in range(10**6):
        x, y = i % 500, i % 300
        points = [x, y, x + 100, y, x + 100, y + 50, x + 60.5, y + 80.25, x + 30, y + 100, x, y + 100.0]
        file.write((', ' if i else '') + json.dumps({
            'id': i + 1, 'image_id': i % 20000 + 1, 'category_id': 1, 'bbox': [x, y, 100, 100 + i * 1e-6], 'iscrowd': 0,
            'area': 8400, 'segmentation': [points * 3]}))
    file.write(']}')
'''


def memory_of_tree(process: int) -> int:
    """Bytes of a process and its children; what they share is counted once (Linux's proportional set size)."""
    total = 0
    try:
        rollup = Path(f'/proc/{process}/smaps_rollup').read_text()
        total = 1024 * int(rollup.partition('Pss:')[2].split()[0])
        for child in Path(f'/proc/{process}/task/{process}/children').read_text().split():
            total += memory_of_tree(int(child))
    except (OSError, IndexError):
        pass  # it has just ended
    return total


@pytest.mark.slow
@pytest.mark.long
def test_a_million_annotations_fit_into_two_gigabytes(tmp_path, repo_root):
    file = tmp_path / 'million.json'
    subprocess.run([sys.executable, '-c', MILLION, str(file)], check=True)
    command = [sys.executable, repo_root / 'tools/check_dataset.py', file, '--workers', '2', '--json', 'found.json']
    peak, start = 0, time.monotonic()
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, memory_of_tree(process.pid))
            time.sleep(1)
    content = json.loads((tmp_path / 'found.json').read_text())
    print(f'{file.stat().st_size / 2**20:.0f} MiB of json, {content["checked"]}: {peak / 2**30:.2f} GiB at most, in '
          f'{time.monotonic() - start:.0f} s')
    assert content['checked']['annotations'] == 10**6
    assert content['codes'] == {'image-missing': 20000, 'area-mismatch': 10**6}  # the area is that of a third
    assert 2**28 < peak < 2**31


def test_the_page_lists_every_finding(repo_root):
    page = (repo_root / 'docs/datasets.md').read_text()
    assert [f'| `{code}` | {severity} | {meaning} |' for code, (severity, meaning) in CODES.items()
            if f'| `{code}` | {severity} | {meaning} |' not in page] == []
