"""Recordings: the black box of a run, any rosbag2 recording, and the episodes that they become."""
