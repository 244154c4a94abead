"""Commands that measure, and print a table. Tests never assert a time."""
