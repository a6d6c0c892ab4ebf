"""Operators that move databases between a host and a storage."""
