"""How sure a classifier is, and whether it should be: pure functions of tensors.

One value per sample, but for what can only be said of a whole set: errors, curves, a temperature.
"""
