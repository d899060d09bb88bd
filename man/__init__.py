"""The manual: the pages, and renderers of the command tree and of tasks."""
