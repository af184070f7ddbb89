"""Raw text to hashed, tokenised shards. Knows nothing of torch or of the training pipeline."""
