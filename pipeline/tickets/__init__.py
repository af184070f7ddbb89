"""Finding, deciding and cutting out the early-bird ticket."""
