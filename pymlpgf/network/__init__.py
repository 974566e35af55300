"""Networks: what is computed, with its data."""
