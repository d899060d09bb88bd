"""Pydantic models and pure data; imports none of our other packages."""
