"""X.509 certificates: what a file holds, and a private certificate authority for a new environment."""
