"""Loops that keep the store in order, each with start() and stop()."""
