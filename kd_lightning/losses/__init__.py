"""Distillation losses: pure functions of tensors, one value per sample."""
