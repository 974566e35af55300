"""The two ways to start Julia."""
