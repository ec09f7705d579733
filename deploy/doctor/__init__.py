"""What is looked at before a robot moves, and what is made of it."""
