"""One HTML page that explains a trained model's results: `write_report` makes it."""
from .writing import write_report

__all__ = ['write_report']
