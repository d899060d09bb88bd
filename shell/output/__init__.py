"""What a user sees: console, rendering, pipes, progress."""
