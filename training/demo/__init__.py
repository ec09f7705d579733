"""The main job end to end, and the report of what came of it."""
