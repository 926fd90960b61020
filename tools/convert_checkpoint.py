#!/usr/bin/env python
"""`convnext-dense convert_checkpoint`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('convert_checkpoint')
