"""Jobs of a client: what runs one, those that run beside others, and the record of those that nobody waits for."""
