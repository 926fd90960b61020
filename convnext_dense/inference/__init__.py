"""The `Predictor`, test protocols, and predictions of files."""
