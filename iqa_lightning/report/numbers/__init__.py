"""Numbers of tables: results of runs, statistics, what follows from the predictions alone."""
