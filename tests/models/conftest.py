"""Prints the measured figures of these tests at the end of the run, so that reports can quote them."""
import pytest

FIGURES: list[str] = []


@pytest.fixture
def figure():
    """Call with a line that the end of the run prints."""
    return FIGURES.append


def pytest_terminal_summary(terminalreporter) -> None:
    if FIGURES:
        terminalreporter.section('backbone figures')
        for line in FIGURES:
            terminalreporter.write_line(line)
