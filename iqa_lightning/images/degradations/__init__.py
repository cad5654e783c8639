"""Degradations of photographs, one image at a time."""
