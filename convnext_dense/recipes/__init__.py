"""The recipes that travel with the package: metadata, parameters and FLOPs."""
