"""Sweeps: many runs that are planned, started, watched and reported together."""
