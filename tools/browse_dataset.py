#!/usr/bin/env python
"""`convnext-dense browse_dataset`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('browse_dataset')
