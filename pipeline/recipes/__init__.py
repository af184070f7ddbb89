"""What can be said about a run, and its checking."""
