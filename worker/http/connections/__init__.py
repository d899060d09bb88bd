"""Connections of HTTP clients: what each may occupy, and which close when there are too many."""
