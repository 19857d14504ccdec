"""Sessions: what a handler sees of its conversation."""
