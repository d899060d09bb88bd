"""Requests of other servers, and of proxies in front of them, that ask about a token."""
