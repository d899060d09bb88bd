"""Jobs at the prompt: those that nobody waits for, and the questions of those that run."""
