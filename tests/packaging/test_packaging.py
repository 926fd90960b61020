"""A wheel has all a user needs: configs and tools travel inside it, and the console command reaches them."""
import subprocess
import sys
import zipfile

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def wheel(tmp_path_factory, repo_root):
    """The wheel of what git tracks, so that a file somebody forgot to commit is missing here too."""
    folder = tmp_path_factory.mktemp('wheel')
    clone = folder / 'clone'
    subprocess.run(['git', 'clone', '-q', str(repo_root), str(clone)], check=True)
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(folder),
                    str(clone)], check=True)
    return next(folder.glob('convnext_dense-*.whl'))


def test_configs_and_tools_are_inside(wheel, repo_root):
    inside = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(['git', 'ls-files', 'configs', 'tools', 'convnext_dense'], cwd=repo_root, text=True,
                             capture_output=True, check=True).stdout.split()
    expected = {file if file.startswith('convnext_dense/') else f'convnext_dense/.mim/{file}' for file in tracked}
    assert expected - inside == set()


def test_the_installed_package_works_from_any_folder(wheel, tmp_path):
    site = tmp_path / 'site'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', str(site), str(wheel)],
                   check=True)
    environment = {'PYTHONPATH': str(site), 'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path)}

    def run(*arguments):
        return subprocess.run([sys.executable, str(site / 'bin/convnext-dense'), *arguments], cwd=tmp_path, text=True,
                              capture_output=True, env=environment, timeout=300)
    assert 'model_info' in run('--help').stdout
    assert 'Train a recipe' in run('train', '--help').stdout
    failed = run('train', 'det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py')
    assert failed.returncode == 2
    assert 'error: train_dataloader: data folder data/coco/ does not exist' in failed.stderr
    assert run('trian').returncode == 2
