"""Wording that messages share."""


def few(values, shown: int = 5) -> str:
    """The first values, for a sentence: ``1, 2, 3, ... (10 in all)``."""
    values = sorted(values) if isinstance(values, (set, frozenset)) else list(values)
    text = ', '.join(map(str, values[:shown]))
    return (text + (f', ... ({len(values)} in all)' if len(values) > shown else '')) or 'none'
