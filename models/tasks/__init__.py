"""Inputs and results of the tasks; one module a family, named as in `worker/tasks/`."""
