"""Real robots: the ROS 2 graph and nodes, robot drivers, teleoperation devices, cameras, safety."""
