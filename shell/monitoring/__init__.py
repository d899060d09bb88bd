"""What `show norfab …` prints of workers, their jobs and logs, and of the broker."""
