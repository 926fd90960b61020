"""Training and testing: the runner, hooks, checkpoints of a run, evaluation outputs."""
