"""Metrics of a worker in the text format of Prometheus, served at an address of their own."""
