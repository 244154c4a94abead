"""Tests of trained nets: that of a finished run, and those of students on other data."""
