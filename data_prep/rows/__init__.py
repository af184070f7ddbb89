"""Rows: packed from token ids, written, read, and masked."""
