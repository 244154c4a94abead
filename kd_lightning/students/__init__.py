"""Students after their run: a file that stands by itself, and the net that is loaded from it."""
