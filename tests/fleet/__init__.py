"""Airflows of several processes and hosts, with databases that are being written."""
