"""Files, locks and progress bars."""
