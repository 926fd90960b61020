#!/usr/bin/env python
"""Write the tables of configs/*/README.md and docs/recipes.md from the metafiles."""
import argparse
from pathlib import Path

from convnext_dense.cli.running import run_tool
from convnext_dense.recipes.metafile import fill_tables, tables_of_pages

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    for page, tables in tables_of_pages().items():
        file = ROOT / page
        file.write_text(fill_tables(file.read_text(), tables))
        print(f'{page}: {", ".join(tables)}')


if __name__ == '__main__':
    run_tool(main)
