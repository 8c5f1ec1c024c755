"""Comparison of the update rules: on surfaces of two variables, and on a user's own solver."""
