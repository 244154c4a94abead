"""Experiment trackers: Lightning's loggers, kept open until the test; a failing one is left out."""
