"""``python -m convnext_dense.cli NAME``: as ``convnext-dense NAME``."""
from . import main

if __name__ == '__main__':
    main()
