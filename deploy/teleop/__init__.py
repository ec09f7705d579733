"""How a person acts: messages of a joystick, a twist or a leader arm become nominal actions of the contract."""
