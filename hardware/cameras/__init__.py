"""Cameras: V4L2 by OpenCV, RealSense, ROS image topics and a synthetic one, behind one interface."""
