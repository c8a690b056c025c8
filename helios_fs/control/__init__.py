"""The control socket: what the command line asks of a running mount, and how the daemon answers."""
