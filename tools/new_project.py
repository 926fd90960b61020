#!/usr/bin/env python
"""`convnext-dense new_project`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('new_project')
