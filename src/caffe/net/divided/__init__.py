"""Nets whose blobs or layers are divided over processes: shards, split products, and stages."""
