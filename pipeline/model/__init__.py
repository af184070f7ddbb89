"""The encoder: its shape, its code, and its mapping to and from Hugging Face."""
