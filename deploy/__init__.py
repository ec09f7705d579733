"""How a policy becomes a safe controller: contract, export, runtime and safety filters."""
