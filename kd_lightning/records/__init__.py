"""Run directories and the jobs of a sweep: what is on the disk of a run."""
