"""Data sets, their splits, and the stream of tasks."""
