"""Correlations of predictions with human ratings, and continual-learning measures made of them."""
