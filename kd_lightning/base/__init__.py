"""Used by all other packages: errors, atomic files, random streams, signals, ranks, tables."""
