"""What is wrong with data before a run begins: files, scores, leaks, duplicates."""
