#!/usr/bin/env python
"""`convnext-dense model_info`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('model_info')
