"""Hyperparameter search with Optuna: trials that survive killed processes, and an unbiased selection of the best."""
