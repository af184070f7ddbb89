"""Fine-tuning tasks: their data, inputs and official metrics."""
