"""Worker processes that the shell starts, watches and stops."""
