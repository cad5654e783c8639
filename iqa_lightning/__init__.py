"""Continual learning of blind image quality assessment with PyTorch Lightning and Hydra."""
