"""Streams of batches for the data layers, one module per kind of source."""
