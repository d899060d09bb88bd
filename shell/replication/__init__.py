"""Compare the tokens of several workers, and bring them together."""
