"""How rollouts reach installs: the engine that moves one, and the checks of what was moved."""
