"""What a robot is: its description, its limits and safe stop, and its simulated plant."""
