"""What all data sets share: files, batches, loaders, splits, checks."""
