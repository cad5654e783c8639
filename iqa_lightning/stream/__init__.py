"""The task stream: which data sets are learnt in which order, in which phases, from which
batches.
"""
