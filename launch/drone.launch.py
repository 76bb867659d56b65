"""A vehicle under PX4 and its Supervisor, or its twin. Nothing moves until services are called.

ros2 launch robot_rl drone.launch.py twin:=true
ros2 service call /supervisor/home std_srvs/srv/Trigger         # takes off
ros2 service call /supervisor/disengage std_srvs/srv/Trigger    # lands

Without twin:=true PX4 has to be there, with its uXRCE-DDS agent in the same ROS domain.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "robot": ("px4", str, "name of a vehicle, or path of its file"),
    "controller": ("", str, "px4_ctbr, px4_velocity or px4_position; empty: that of the vehicle's file"),
    "policy": ("", str, "whose contract is followed: a run, checkpoint, export or contract file; empty: none"),
    "twin": ("false", bool, "simulate the vehicle"),
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(
            name, default_value=default, description=text, choices=["true", "false"] if kind is bool else None
        )
        for name, (default, kind, text) in ARGUMENTS.items()
    ]
    twin = Node(
        package="robot_rl", executable="robot_rl_px4_twin", output="screen", emulate_tty=True,
        parameters=[values("robot")], condition=IfCondition(LaunchConfiguration("twin")),
    )  # fmt: skip
    supervisor = Node(
        package="robot_rl", executable="robot_rl_px4", output="screen", emulate_tty=True,
        parameters=[values("robot", "controller", "policy")],
        on_exit=Shutdown(reason="the Supervisor has ended"),
    )  # fmt: skip
    return LaunchDescription([*declared, twin, supervisor])


def values(*names: str) -> dict[str, ParameterValue]:
    """Launch arguments as parameters of the same name."""
    return {name: ParameterValue(LaunchConfiguration(name), value_type=ARGUMENTS[name][1]) for name in names}
