"""Measuring a net: arithmetic, memory, traces, the norms of debug_info, and gradient checks."""
