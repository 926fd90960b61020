#!/usr/bin/env python
"""`convnext-dense train`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('train')
