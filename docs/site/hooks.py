"""What the site shows from outside docs/: the README, the configs, and notebooks as pages (mkdocs.yml)."""
import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r'(?<=\]\()(?!\w+:|#)([^)#\s]+)')
PAGES = ('configs/det/README.md', 'configs/seg/README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')
GENERATED = {'index.md': 'README.md', **{page: page for page in PAGES}}  # page -> file of the repository


def on_config(config):
    """Put pages that the navigation does not name at the end of its guides."""
    guides = next(section['Guides'] for section in config.nav if 'Guides' in section)
    guides += sorted(page.name for page in (ROOT / 'docs').glob('*.md') if f"'{page.name}'" not in repr(config.nav))
    return config


def on_files(files: Files, config) -> Files:
    """Add pages for files outside docs/, and the other files that links lead to, as they are."""
    texts = {file.src_uri: Path(file.abs_src_path).read_text() for file in files if file.src_uri.endswith('.md')}
    for page, source in GENERATED.items():
        texts[page] = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=texts[page]))
    for file in list(files):
        if file.src_uri.endswith('.ipynb'):
            page = file.src_uri.removesuffix('.ipynb') + '.md'
            files.append(File.generated(config, page, content=notebook_page(Path(file.abs_src_path))))
    for page, text in texts.items():
        for link in LINK.findall(text):
            target = repository_path(page, link)
            known = target is None or target.startswith('docs/') or target in GENERATED.values()
            if not known and (ROOT / target).is_file() and files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Links to files of the repository become links to their places on the site."""
    def placed(link: re.Match) -> str:
        target = repository_path(page.file.src_uri, link[1])
        if target is None:
            return link[1]
        target = next((name for name, source in GENERATED.items() if source == target), target)
        return posixpath.relpath(target.removeprefix('docs/'), posixpath.dirname(page.file.src_uri) or '.')
    return LINK.sub(placed, markdown)


def repository_path(page: str, link: str) -> str | None:
    """Where a link on a page leads, below the repository; None where it stays inside docs/."""
    source = GENERATED.get(page, f'docs/{page}')
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    return None if target.startswith('docs/') and page not in GENERATED else target


def notebook_page(file: Path) -> str:
    """A notebook as Markdown: its text, and its code in fences."""
    parts = []
    for cell in json.loads(file.read_text())['cells']:
        text = ''.join(cell['source'])
        parts.append(text if cell['cell_type'] == 'markdown' else f'```python\n{text}\n```')
    return '\n\n'.join([*parts, f'[This notebook as a file]({file.name})']) + '\n'
