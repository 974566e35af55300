"""Proofs about the points that were found."""
