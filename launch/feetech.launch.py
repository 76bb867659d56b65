"""The driver of an arm on a Feetech bus, such as the SO-101: its joints and commands as topics, as of any other robot.

ros2 launch robot_rl feetech.launch.py robot:=so101 port:=/dev/ttyACM0

Calibrate the arm first: robot-rl robots calibrate so101 --port /dev/ttyACM0 (docs/so101.md).
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "robot": ("so101", "name of a robot whose file has a driver, or path of the file"),
    "port": ("/dev/ttyACM0", "serial port of the bus; robot-rl robots ports lists them"),
    "calibration": ("", "name, or path of its file; empty: the robot's name"),
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    values = {name: ParameterValue(LaunchConfiguration(name), value_type=str) for name in ARGUMENTS}
    driver = Node(
        package="robot_rl", executable="robot_rl_feetech", output="screen", emulate_tty=True, parameters=[values]
    )
    return LaunchDescription([*declared, driver])
