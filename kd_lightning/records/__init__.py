"""The files of a run: its run directory, and the directories of a sweep's jobs."""
