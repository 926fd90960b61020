"""One HTML page that explains a trained model's results."""
