"""Sensors that wait until something is whole."""
