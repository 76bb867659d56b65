"""Safety: the Supervisor between every source of actions and the robot, and what it goes by."""
