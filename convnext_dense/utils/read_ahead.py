"""Reading in the background, one item ahead."""
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar('Item')
END = object()


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items of an iterator in their order; a thread makes the next one while the caller works on this one.

    An error of the iterator is raised where its item would have been. No thread is left when the caller stops early or
    is interrupted: the item that is being made is finished and dropped.
    """
    with ThreadPoolExecutor(1, 'read-ahead') as pool:
        coming = pool.submit(next, items, END)
        while (item := coming.result()) is not END:
            coming = pool.submit(next, items, END)
            yield item


__all__ = ['read_ahead']
