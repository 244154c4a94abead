"""From a configuration to what a run needs: data, method, trainer, schedule."""
