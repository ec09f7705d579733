"""Lifecycle node that runs an exported onestride policy at control rate behind its safety filters."""
