"""Connections of direct clients: how many there may be, and how much of a message one may send before its end."""
