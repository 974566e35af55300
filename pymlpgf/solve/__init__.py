"""Follow the flow, find the minimum."""
