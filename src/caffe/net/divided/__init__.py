"""Nets whose blobs or layers are divided over processes: sharding, tensor parallelism and pipelines."""
