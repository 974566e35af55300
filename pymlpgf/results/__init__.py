"""What runs return and write to disk."""
