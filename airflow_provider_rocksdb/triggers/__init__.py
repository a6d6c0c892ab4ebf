"""Asynchronous halves of the sensors."""
