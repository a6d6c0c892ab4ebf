"""Operators that create and delete checkpoints."""
