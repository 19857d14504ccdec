"""Routes: patterns, handlers checked as they are registered, settings for a part of them."""
