"""Measurements of a net: operations, memory, traces, the norms of debug_info, and gradient checks."""
