"""How a policy is learnt: agents, the training loop, environments and checkpoints."""
