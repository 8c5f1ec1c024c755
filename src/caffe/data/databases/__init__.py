"""Record databases, LMDB, LevelDB and tar shards, for reading and writing, and the Datum record."""
