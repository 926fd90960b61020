#!/usr/bin/env python
"""`convnext-dense check_dataset`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('check_dataset')
