"""The methods: each a LightningModule whose ``training_step`` reads like the paper's algorithm."""
