"""Inputs that nobody has written: mutations of real databases' files, for each format that is read."""
