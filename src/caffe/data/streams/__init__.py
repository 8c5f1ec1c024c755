"""Streams of batches: what each data layer reads, one module for a kind of source."""
