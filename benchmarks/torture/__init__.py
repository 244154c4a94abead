"""Kills, faults and random input, tried on purpose."""
