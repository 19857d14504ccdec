"""The other end of a conversation: connect, and hold the same session as a handler has."""
