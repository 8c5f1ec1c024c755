"""Training with several processes: starting them, connecting them, and exchanging data."""
