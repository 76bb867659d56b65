"""As much of ROS 2 Jazzy's `launch_ros` as the launch files use."""
