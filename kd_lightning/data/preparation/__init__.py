"""What ``python -m kd_lightning.prepare`` does: decode or pack a tree of images once."""
