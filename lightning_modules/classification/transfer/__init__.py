"""Transfer: features of networks, and classifiers on features."""
