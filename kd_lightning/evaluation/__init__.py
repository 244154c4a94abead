"""The test of a finished run: metrics, calibration, model soups, majority vote, results table."""
