"""How long a policy file and the control tick around it take, on the device that will run them."""
