"""Backups on every kind of storage, each a real server."""
