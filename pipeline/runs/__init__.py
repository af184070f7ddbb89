"""One run and its folder: where each stage reads and writes."""
