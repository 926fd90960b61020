#!/usr/bin/env python
"""`convnext-dense publish_checkpoint`, from a checkout."""
from convnext_dense.cli import run

if __name__ == '__main__':
    run('publish_checkpoint')
