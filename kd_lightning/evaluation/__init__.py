"""The test of a finished run: metrics, calibration, soups, votes, the table."""
