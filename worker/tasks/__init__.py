"""The tasks, one module a family."""
