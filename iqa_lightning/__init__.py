"""Continual learning of blind image quality assessment."""
