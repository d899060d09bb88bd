"""The Python API: `NorFab` and its `Client`."""
