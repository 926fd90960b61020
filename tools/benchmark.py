#!/usr/bin/env python
"""`convnext-dense benchmark`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('benchmark')
