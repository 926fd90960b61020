#!/usr/bin/env python
"""`convnext-dense write_shards`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('write_shards')
