"""The prompt: session, line editing, completion, help, history; scripts run the same session."""
