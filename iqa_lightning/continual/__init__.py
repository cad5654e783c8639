"""The walk over the task stream: when things happen."""
