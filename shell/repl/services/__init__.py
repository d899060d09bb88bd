"""What the shell knows of services: their tasks, and the files that a fabric shares."""
