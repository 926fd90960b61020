"""`write_report`: one HTML page about the results of a trained model."""
from .writing import write_report

__all__ = ['write_report']
