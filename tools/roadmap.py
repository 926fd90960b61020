#!/usr/bin/env python
"""`convnext-dense roadmap`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('roadmap')
