"""What a person needs to move the robot: the Supervisor, the recorder, and the node of a device.

ros2 launch robot_rl teleop.launch.py robot:=panda twin:=true package:=my_devices executable:=my_spacemouse

The device's node proposes actions to the Supervisor under a lease of kind `device`; docs/ros2.md describes how. The
arguments of twin.launch.py and record.launch.py can be given here, too.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, Shutdown
from launch.conditions import IfCondition, UnlessCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, NotEqualsSubstitution, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "robot": ("panda", str, "name of a robot, or path of its file"),
    "package": ("robot_rl", str, "of the device's node"),
    "executable": ("", str, "of the device's node; empty: it is started elsewhere"),
    "record": ("true", bool, "keep a black box, and import its episodes"),
    "output": ("runs/teleop/bags", str, "folder for the black boxes"),
    "dataset": ("runs/teleop/episodes.zarr", str, "store that closed episodes are imported into; empty: none"),
    "twin": ("false", bool, "simulate the robot, in real time"),
    "task": ("lift", str, "of the twin"),
    "cameras": ("", str, "of the twin, as name:HEIGHTxWIDTH, separated by commas"),
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(
            name, default_value=default, description=text, choices=["true", "false"] if kind is bool else None
        )
        for name, (default, kind, text) in ARGUMENTS.items()
    ]
    robot = {"robot": ParameterValue(LaunchConfiguration("robot"), value_type=str)}
    supervisor = Node(
        package="robot_rl", executable="robot_rl_supervisor", output="screen", emulate_tty=True,
        parameters=[robot], on_exit=Shutdown(reason="the Supervisor has ended"),
    )  # fmt: skip
    named = NotEqualsSubstitution(LaunchConfiguration("executable"), "")
    device = Node(
        package=LaunchConfiguration("package"), executable=LaunchConfiguration("executable"), output="screen",
        emulate_tty=True, condition=IfCondition(named),
    )  # fmt: skip
    missing = LogInfo(msg="No device: start a node that proposes actions.", condition=UnlessCondition(named))
    return LaunchDescription([*declared, include("twin"), supervisor, include("record"), device, missing])


def include(name: str) -> IncludeLaunchDescription:
    """Another launch file, where the argument of its name is true. It sees the arguments of this one."""
    source = PythonLaunchDescriptionSource(PathJoinSubstitution([ThisLaunchFileDir(), f"{name}.launch.py"]))
    return IncludeLaunchDescription(source, condition=IfCondition(LaunchConfiguration(name)))
