"""Search, cut, pre-train, export and fine-tune slim transformer encoders on DeepSpeed."""
