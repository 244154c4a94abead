"""What a run records and shows while it trains; sees a method only through its public names."""
