"""Where teachers come from, and how trained ones are kept."""
