"""Sections of a worker's inventory that have keys of their own."""
