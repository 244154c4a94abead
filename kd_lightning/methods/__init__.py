"""The methods: each a LightningModule whose ``losses`` reads like the paper's algorithm."""
