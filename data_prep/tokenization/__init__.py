"""Vocabularies: trained, loaded, and what their entries mean."""
