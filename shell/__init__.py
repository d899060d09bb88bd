"""The shell: command line, prompt and scripts, the client, and the processes of workers; never imports the worker."""
