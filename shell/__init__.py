"""The shell: words, prompt, scripts, the client and the launcher; never imports the worker."""
