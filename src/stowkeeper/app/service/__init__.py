"""The server as a service of the machine: units for systemd, a plist for launchd, a daemon where there is neither."""
