#!/usr/bin/env python
"""`convnext-dense export`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('export')
