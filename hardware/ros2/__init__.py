"""The ROS 2 graph behind one small port: rclpy where ROS 2 is sourced, plain DDS where it is not."""
