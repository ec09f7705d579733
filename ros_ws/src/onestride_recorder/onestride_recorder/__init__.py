"""Records what a onestride controller sees, decides and sends."""
