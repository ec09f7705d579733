"""Environments by name, and what a policy sees and does in each."""
