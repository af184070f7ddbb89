"""Which layers run when."""
