"""What is learnt: rows, batches, heads, validation."""
