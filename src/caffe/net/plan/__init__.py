"""Plans of a run: the list of calls, their rewrites, and 16-bit arithmetic."""
