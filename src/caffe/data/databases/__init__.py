"""Record databases, LMDB and LevelDB, for reading and writing, and the Datum record."""
