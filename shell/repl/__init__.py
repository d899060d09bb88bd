"""The shell's sessions: prompt, scripts, completion, help, history, and the dispatch of commands."""
