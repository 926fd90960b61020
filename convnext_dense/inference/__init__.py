"""From a trained model to predictions: test protocols and the `Predictor`."""
