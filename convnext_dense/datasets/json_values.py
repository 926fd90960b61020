"""Kinds of values in json from elsewhere, in the ranges that numpy and pycocotools can hold."""


def is_integer(value) -> bool:
    """Whether a json value is an integer of at most 63 bits; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool) and -2**63 <= value < 2**63


def is_number(value) -> bool:
    """Whether a json value is a number that float32 can hold: neither NaN nor infinite, neither true nor false."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**127
