"""Benchmark commands: each measures something and prints a table. No test asserts a time."""
