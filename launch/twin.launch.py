"""The twin alone: a simulated robot that speaks exactly the topics of the robot's file.

ros2 launch robot_rl twin.launch.py robot:=panda task:=lift cameras:=agentview:480x640
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {  # each is a parameter of the node
    "robot": ("panda", str, "name of a robot, or path of its file"),
    "task": ("lift", str, "of the simulation"),
    "cameras": ("", str, "of the scene, as name:HEIGHTxWIDTH, separated by commas"),
    "randomization": ("none", str, "of the scene, a file of sim/randomization"),
    "seed": ("0", int, "of the first episode; every reset raises it by one"),
    "real_time": ("true", bool, "else as fast as the others follow, on /clock: they need use_sim_time"),
    "latency": ("0.0", float, "of all topics, from stamp to arrival [s]"),
    "jitter": ("0.0", float, "of all topics, added to the latency: uniform from 0 to this [s]"),
    "loss": ("0.0", float, "of all topics, probability that a message is lost"),
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(
            name, default_value=default, description=text, choices=["true", "false"] if kind is bool else None
        )
        for name, (default, kind, text) in ARGUMENTS.items()
    ]
    values = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind) for name, (_, kind, _) in ARGUMENTS.items()
    }
    twin = Node(
        package="robot_rl", executable="robot_rl_twin", output="screen", emulate_tty=True, parameters=[values]
    )  # fmt: skip
    return LaunchDescription([*declared, twin])
