#!/usr/bin/env python
"""`convnext-dense show_lr`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('show_lr')
