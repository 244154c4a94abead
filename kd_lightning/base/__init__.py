"""What every room stands on: errors, whole files, random streams, signals, ranks, tables."""
