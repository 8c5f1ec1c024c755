"""Shared parts of all streams: prefetching, threads, random numbers, shards, and batch transformation."""
