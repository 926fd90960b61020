#!/usr/bin/env python
"""`convnext-dense report`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('report')
