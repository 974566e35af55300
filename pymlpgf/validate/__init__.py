"""Is that what was asked for? Checks of arguments, before any work."""
