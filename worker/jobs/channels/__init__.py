"""What a running task tells the client that waits for it, and asks it."""
