"""A policy on a robot, or on its twin: Supervisor, policy and recorder. Nothing moves until services are called.

ros2 launch robot_rl deploy.launch.py policy:=runs/demo robot:=panda twin:=true
ros2 service call /supervisor/home std_srvs/srv/Trigger    # the robot moves home
ros2 service call /policy/start std_srvs/srv/Trigger       # the policy acts until /policy/stop

The arguments of twin.launch.py, feetech.launch.py and record.launch.py can be given here, too.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import (
    AndSubstitution,
    IfElseSubstitution,
    LaunchConfiguration,
    NotSubstitution,
    PathJoinSubstitution,
    ThisLaunchFileDir,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "policy": (None, str, "run folder, checkpoint folder or exported policy"),
    "robot": ("panda", str, "name of a robot, or path of its file"),
    "homing": ("servo", str, "servo, or action: the way home is a goal of the robot's home_action"),
    "mode": ("receding_horizon", str, "how chunks are executed"),
    "execute": ("0", int, "actions executed of each chunk; 0: as it was made for, or half"),
    "guidance": ("0.0", float, "of real-time chunking by guided inpainting; 0: none"),
    "device": ("cpu", str, "of a policy in torch: cpu or cuda"),
    "threads": ("1", int, "that compute the policy"),
    "record": ("true", bool, "keep a black box, and import its episodes"),
    "output": ("runs/deploy/bags", str, "folder for the black boxes"),
    "dataset": ("runs/deploy/episodes.zarr", str, "store that closed episodes are imported into; empty: none"),
    "feetech": ("false", bool, "start the driver of an arm such as the SO-101; port:=/dev/ttyACM0 says where"),
    "twin": ("false", bool, "simulate the robot"),
    "task": ("lift", str, "of the twin"),
    "cameras": ("", str, "of the twin, as name:HEIGHTxWIDTH, separated by commas"),
    "real_time": ("true", bool, "of the twin; else simulated time goes as fast as all can follow"),
}
CHOICES = {
    "homing": ["servo", "action"],
    "mode": ["receding_horizon", "temporal_ensembling", "asynchronous", "real_time"],
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(
            name, default_value=default, description=text,
            choices=["true", "false"] if kind is bool else CHOICES.get(name),
        )
        for name, (default, kind, text) in ARGUMENTS.items()
    ]  # fmt: skip
    lockstep = AndSubstitution(LaunchConfiguration("twin"), NotSubstitution(LaunchConfiguration("real_time")))
    shared = values("policy", "robot") | {"use_sim_time": ParameterValue(lockstep, value_type=bool)}
    # In lockstep the Supervisor waits for the action of the same time; in real time it never waits.
    wait = ParameterValue(IfElseSubstitution(lockstep, "1.5", "0.0"), value_type=float)
    supervisor = Node(
        package="robot_rl", executable="robot_rl_supervisor", output="screen", emulate_tty=True,
        parameters=[shared | values("homing") | {"wait_for_proposal": wait}],
        on_exit=Shutdown(reason="the Supervisor has ended"),
    )  # fmt: skip
    chunks = values("mode", "execute", "guidance", "device", "threads")
    policy = Node(
        package="robot_rl", executable="robot_rl_policy", output="screen", emulate_tty=True,
        parameters=[shared | chunks | {"lockstep": ParameterValue(lockstep, value_type=bool)}],
    )  # fmt: skip
    return LaunchDescription([
        *declared, include("twin"), include("feetech"), supervisor, include("record", use_sim_time=lockstep), policy
    ])  # fmt: skip


def values(*names: str) -> dict[str, ParameterValue]:
    """Launch arguments as parameters of the same name."""
    return {name: ParameterValue(LaunchConfiguration(name), value_type=ARGUMENTS[name][1]) for name in names}


def include(name: str, **arguments: AndSubstitution) -> IncludeLaunchDescription:
    """Another launch file, where the argument of its name is true. It sees the arguments of this one."""
    source = PythonLaunchDescriptionSource(PathJoinSubstitution([ThisLaunchFileDir(), f"{name}.launch.py"]))
    condition = IfCondition(LaunchConfiguration(name))
    return IncludeLaunchDescription(source, launch_arguments=arguments.items(), condition=condition)
