"""What a policy is: networks and mean-flow maps in torch, ignorant of files, environments and robots."""
