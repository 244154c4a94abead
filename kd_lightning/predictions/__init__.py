"""``kd_lightning.predict``: reads images or series, predicts their classes, writes a table."""
