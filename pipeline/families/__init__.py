"""What a model is made of: units, tensors, code, and its Hugging Face forms."""
