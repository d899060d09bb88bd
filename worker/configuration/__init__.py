"""The configuration of a worker: from the inventory or the broker, and read again while it runs."""
