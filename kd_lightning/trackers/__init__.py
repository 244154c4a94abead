"""Experiment trackers: Lightning's loggers, made to last a whole run and never to stop one."""
