"""The twin: a simulated robot that speaks the very same ROS 2 topics as the real one."""
