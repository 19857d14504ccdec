"""The server: an application, its hosts and listeners, from a connection's first byte to its last."""
