"""Configs for former versions of DeepSpeed, taken apart into what this pipeline reads."""
