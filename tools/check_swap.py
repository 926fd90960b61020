#!/usr/bin/env python
"""`convnext-dense check_swap`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('check_swap')
