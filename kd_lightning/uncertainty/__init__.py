"""How sure a classifier is of each sample: pure functions of tensors, one value per sample."""
