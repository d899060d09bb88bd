"""Running workers as a service: the systemd unit, and its installation."""
