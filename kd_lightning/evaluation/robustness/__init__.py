"""Tests of students on samples unlike those of training: corrupted, attacked, of other classes."""
