#!/usr/bin/env python
"""`convnext-dense convert_dataset`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('convert_dataset')
