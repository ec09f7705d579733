"""Thin adapters between onestride's topics and drivers with messages of their own."""
