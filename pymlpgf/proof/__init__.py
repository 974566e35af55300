"""Proofs about critical points."""
