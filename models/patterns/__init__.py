"""Regular expressions with a time limit."""
