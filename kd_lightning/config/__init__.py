"""The configuration: where its files are, how it is checked, and how errors become sentences."""
