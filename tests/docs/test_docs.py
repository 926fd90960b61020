"""What README and docs name is there: links, configs, tools and their flags."""
import re

import pytest
from tool_runs import must_run

ROOT_PAGES = ['README.md', 'configs/det/README.md', 'configs/seg/README.md']


@pytest.fixture(scope='module')
def pages(repo_root) -> dict:
    files = [repo_root / page for page in ROOT_PAGES] + sorted((repo_root / 'docs').glob('*.md'))
    return {file: file.read_text() for file in files}


def test_links_lead_somewhere(pages):
    broken = [f'{file.name}: {link}' for file, text in pages.items()
              for link in re.findall(r'\]\(([^)#\s]+)', text)
              if not link.startswith('http') and not (file.parent / link).exists()]
    assert broken == []


def test_named_configs_and_tools_exist(pages, repo_root):
    missing = [f'{file.name}: {path}' for file, text in pages.items()
               for path in re.findall(r'(?<![\w/.])((?:configs|tools)/[\w./-]+\.(?:py|sh))', text)
               if not (repo_root / path).exists()]
    assert missing == []


@pytest.mark.slow
def test_flags_in_commands_exist(pages, repo_root):
    """Every `--flag` of a documented `python tools/X.py ...` line is one that the tool knows."""
    used = {}
    for text in pages.values():
        for tool, rest in re.findall(r'python tools/(benchmark\.py \w+|\w+)((?:[^\n]*\\\n)*[^\n]*)', text):
            used.setdefault(tool, set()).update(re.findall(r'(?<![\w-])--[a-z][a-z-]*', rest.partition('#')[0]))
    assert len(used) > 5
    for tool, flags in used.items():
        name, _, command = tool.partition('.py ')  # benchmark.py has commands with flags of their own
        shown = must_run(name, *command.split(), '--help').out
        assert flags - set(re.findall(r'--[a-z][a-z-]*', shown)) == set(), tool
