"""The nets: each takes raw inputs and returns ``ModelOutput(logits, features)``."""
