"""The training core: one loop, the engine, checkpoints, ranks."""
