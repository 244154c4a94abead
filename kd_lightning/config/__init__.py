"""The configuration: where it is, how it is checked, and errors as sentences."""
