"""The teacher's outputs on the training samples, computed once and reused."""
