#!/usr/bin/env python
"""`convnext-dense make_shapes`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('make_shapes')
