"""Everything that is wrong with a data set, found before training: see `codes.CODES` and docs/datasets.md."""
