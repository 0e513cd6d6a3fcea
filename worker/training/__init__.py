"""How the bundled checkpoint is made, and what it is worth."""
