"""What runs give back and write to disk."""
