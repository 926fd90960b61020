"""A notebook of docs/, executed on the real data in the order of its cells."""
import os
import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip('nbclient')
nbformat = pytest.importorskip('nbformat')
pytest.importorskip('ipykernel')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['detection'])
def test_notebook_runs_to_its_end(name, real_data, repo_root, tmp_path, monkeypatch):
    """A command that fails in a cell would go unnoticed, so what the cells leave behind counts."""
    commands = tmp_path / 'bin/convnext-dense'  # of this checkout, whatever is installed
    commands.parent.mkdir()
    commands.write_text(f'#!/bin/sh\nexec {sys.executable} -m convnext_dense.cli "$@"\n')
    commands.chmod(0o755)
    for variable, value in (('PATH', os.pathsep.join([str(commands.parent), os.environ['PATH']])),
                            ('PYTHONPATH', str(repo_root)), ('CONVNEXT_DENSE_DATA', str(real_data)),
                            ('JUPYTER_PLATFORM_DIRS', '1'), ('IPYTHONDIR', str(tmp_path / 'ipython'))):
        monkeypatch.setenv(variable, value)
    notebook = nbformat.read(repo_root / f'docs/notebooks/{name}.ipynb', as_version=4)
    assert not any(cell.get('outputs') for cell in notebook.cells)  # kept without, so that changes can be read
    nbclient.NotebookClient(notebook, timeout=600, kernel_name='python3',
                            resources={'metadata': {'path': str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    text = ''.join(output.get('text', '') or output.get('data', {}).get('text/plain', '') for output in outputs)
    assert 'error' not in text.lower(), text
    pictures = [output for output in outputs if 'image/png' in output.get('data', {})
                or 'image/jpeg' in output.get('data', {})]
    assert len(pictures) == 2  # the contact sheet and the prediction
    assert all(Path(tmp_path, file).exists() for file in ('found.jpg', 'found.json', 'projects/people/run'))
