"""Sections of a configuration that belong to one family of experiments, a file each."""
