"""Reading in the background keeps order and errors, is one item ahead, and leaves no thread."""
import threading

import pytest

from convnext_dense.utils.read_ahead import read_ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith('read-ahead')]


def test_order_and_where_items_are_made():
    made = []

    def items():
        for index in range(20):
            made.append(threading.current_thread().name)
            yield index

    assert list(read_ahead(items())) == list(range(20))
    assert set(made) == {'read-ahead_0'} and not threads()
    assert list(read_ahead(iter([]))) == [] and list(read_ahead(iter([None, 0]))) == [None, 0]


def test_the_next_item_is_made_while_this_one_is_used():
    """Each side waits for the other: without a thread this would hang (here: fail after 10 s)."""
    used = [threading.Event() for _ in range(3)]
    made = [threading.Event() for _ in range(3)]

    def items():
        for index in range(3):
            if index:
                assert used[index - 1].wait(10)
            made[index].set()
            yield index

    for index in read_ahead(items()):
        used[index].set()
        assert index == 2 or made[index + 1].wait(10)


def test_no_more_than_one_item_ahead():
    made = []
    ahead = read_ahead(made.append(index) or index for index in range(9))
    for used in range(3):
        assert next(ahead) == used and len(made) <= used + 2
    ahead.close()
    assert not threads() and len(made) <= 5


@pytest.mark.parametrize('kind', [ValueError, KeyboardInterrupt])
def test_an_error_comes_in_its_place(kind):
    def items():
        yield 1
        yield 2
        raise kind('here')

    seen = []
    with pytest.raises(kind, match='here'):
        for item in read_ahead(items()):
            seen.append(item)
    assert seen == [1, 2] and not threads()


def test_an_interrupt_of_the_caller_ends_the_thread():
    made = []
    with pytest.raises(KeyboardInterrupt):
        for _ in read_ahead(made.append(index) or index for index in range(1000)):
            raise KeyboardInterrupt
    assert len(made) <= 2 and not threads()
