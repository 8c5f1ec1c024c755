"""Databases of records: LMDB and LevelDB, read and written, and the Datum record itself."""
