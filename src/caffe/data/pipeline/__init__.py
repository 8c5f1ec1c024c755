"""What all streams share: reading ahead, threads, random numbers, shards, and the transformation of a batch."""
