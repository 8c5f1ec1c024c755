"""Search of a solver's and a net's settings on Optuna: trials that survive their process, and honest selection."""
