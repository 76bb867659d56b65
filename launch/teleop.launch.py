"""A person moves the robot and records episodes: the Supervisor, the recorder, and the node of a device.

ros2 launch robot_rl teleop.launch.py robot:=panda twin:=true device:=spacemouse
ros2 topic pub --once /teleop/command std_msgs/msg/String "data: record"    # or success, failure, discard, …

Launch gives its nodes no terminal: for device:=keyboard run robot_rl_teleop in a terminal, with device:= empty here.
The arguments of twin.launch.py, feetech.launch.py and record.launch.py can be given here, too.
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
    "device": ("web", str, "that moves it, see docs/teleoperation.md; empty: its node is started elsewhere"),
    "frame": ("base", str, "of the device's axes: base, tool or camera"),
    "operator": ("", str, "who moves the device, kept with each episode"),
    "text": ("", str, "instruction, kept with each episode"),
    "episodes": ("0", int, "wanted; 0: any number"),
    "countdown": ("3.0", float, "before each recording [s]"),
    "record": ("true", bool, "keep a black box, and import its episodes"),
    "output": ("runs/teleop/bags", str, "folder for the black boxes"),
    "dataset": ("runs/teleop/episodes.zarr", str, "store that closed episodes are imported into; empty: none"),
    "feetech": ("false", bool, "start the driver of an arm such as the SO-101; port:=/dev/ttyACM0 says where"),
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
    supervisor = Node(
        package="robot_rl", executable="robot_rl_supervisor", output="screen", emulate_tty=True,
        parameters=[values("robot")], on_exit=Shutdown(reason="the Supervisor has ended"),
    )  # fmt: skip
    named = NotEqualsSubstitution(LaunchConfiguration("device"), "")
    settings = values("robot", "device", "frame", "operator", "text", "episodes", "countdown", "task", "twin")
    device = Node(
        package="robot_rl", executable="robot_rl_teleop", output="screen", emulate_tty=True, parameters=[settings],
        condition=IfCondition(named),
    )  # fmt: skip
    missing = LogInfo(msg="No device: start robot_rl_teleop elsewhere.", condition=UnlessCondition(named))
    return LaunchDescription([
        *declared,
        include("twin"),
        include("feetech"),
        supervisor,
        include("record"),
        device,
        missing,
    ])


def values(*names: str) -> dict[str, ParameterValue]:
    """Launch arguments as parameters of the same name."""
    return {name: ParameterValue(LaunchConfiguration(name), value_type=ARGUMENTS[name][1]) for name in names}


def include(name: str) -> IncludeLaunchDescription:
    """Another launch file, where the argument of its name is true. It sees the arguments of this one."""
    source = PythonLaunchDescriptionSource(PathJoinSubstitution([ThisLaunchFileDir(), f"{name}.launch.py"]))
    return IncludeLaunchDescription(source, condition=IfCondition(LaunchConfiguration(name)))
