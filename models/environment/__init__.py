"""Where things are stored on disk: paths, private files, CURVE keys, worker lock and lease."""
