"""One LightningDataModule per data set, shared by every method."""
