"""What a run is: its folder, its process, a sweep of many."""
