"""Stops a robot whose onestride controller has died."""
