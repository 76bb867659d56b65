"""The recorder alone: a black box (rosbag2, MCAP) of all streams, and each closed episode in a store.

ros2 launch robot_rl record.launch.py robot:=panda output:=runs/record/bags dataset:=runs/record/episodes.zarr
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {  # each is a parameter of the node
    "robot": ("panda", str, "name of a robot, or path of its file"),
    "policy": ("", str, "checkpoint whose features are recorded; empty: all of the robot's"),
    "output": ("runs/record/bags", str, "folder for the black boxes"),
    "dataset": ("runs/record/episodes.zarr", str, "store that closed episodes are imported into; empty: none"),
    "use_sim_time": ("false", bool, "take the time from /clock"),
}

IMPORT = "60"
"""How long an episode may be imported after Ctrl-C, until the node is killed [s]."""


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
    recorder = Node(
        package="robot_rl", executable="robot_rl_recorder", output="screen", emulate_tty=True, parameters=[values],
        sigterm_timeout=IMPORT, sigkill_timeout=IMPORT,
    )  # fmt: skip
    return LaunchDescription([*declared, recorder])
