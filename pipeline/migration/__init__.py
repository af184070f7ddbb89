"""Configs and model folders of former years, made into what this pipeline reads."""
