"""Knowledge distillation of classifiers, on images and time series, with numbers to believe."""

__version__ = "0.1.0"
