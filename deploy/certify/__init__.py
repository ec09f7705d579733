"""Evidence about a policy on a robot: what its safety chain claims, and what became of the claims under attack."""
