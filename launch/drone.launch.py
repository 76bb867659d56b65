"""A vehicle under PX4 and its Supervisor, or its twin; with a policy and a recorder where that is asked for.

ros2 launch robot_rl drone.launch.py twin:=true
ros2 service call /supervisor/home std_srvs/srv/Trigger         # takes off
ros2 service call /supervisor/disengage std_srvs/srv/Trigger    # lands

ros2 launch robot_rl drone.launch.py robot:=runs/deploy/deployment/robot.yaml policy:=runs/figure8 task:=drone/figure8
ros2 service call /policy/start std_srvs/srv/Trigger            # once it is ready; unflown it lands after some seconds

Nothing moves until services are called. Without twin:=true PX4 has to be there, with its uXRCE-DDS agent in the same
ROS domain. A policy that was trained in the simulator sees what its task computes from odometry, and needs task:=.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import (
    AndSubstitution,
    IfElseSubstitution,
    LaunchConfiguration,
    NotEqualsSubstitution,
    NotSubstitution,
    PathJoinSubstitution,
    ThisLaunchFileDir,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "robot": ("px4", str, "name of a vehicle, or path of its file"),
    "controller": ("", str, "px4_ctbr, px4_attitude, px4_velocity or px4_position; empty: that of the vehicle's file"),
    "policy": ("", str, "run folder, checkpoint folder or exported policy, which is started, too; empty: none"),
    "task": ("", str, "of the policy, which computes what it sees beside odometry; empty: it sees odometry alone"),
    "horizon": ("0", int, "control steps after which the task is over; 0: its own"),
    "mode": ("receding_horizon", str, "how chunks of the policy are executed"),
    "execute": ("0", int, "actions executed of each chunk; 0: half of it"),
    "device": ("cpu", str, "of a policy in torch: cpu or cuda"),
    "threads": ("1", int, "that compute the policy"),
    "record": (
        "false",
        bool,
        "keep a black box, and import its episodes; under the contract of the policy, else of the file",
    ),
    "output": ("runs/drone/bags", str, "folder for the black boxes"),
    "dataset": ("runs/drone/episodes.zarr", str, "store that closed episodes are imported into; empty: none"),
    "twin": ("false", bool, "simulate the vehicle"),
    "cameras": ("", str, "of the twin, which see the task's scene: onboard:48x64 (height x width); empty: none"),
    "release": ("v1.17", str, "of PX4, whose topics the twin has"),
    "real_time": ("true", bool, "of the twin; else simulated time goes as fast as all can follow"),
}
CHOICES = {
    "controller": ["", "px4_ctbr", "px4_attitude", "px4_velocity", "px4_position"],
    "release": ["v1.16", "v1.17"],
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
    in_lockstep = ParameterValue(lockstep, value_type=bool)
    # In lockstep the Supervisor waits for the action of the same time; in real time it never waits.
    wait = ParameterValue(IfElseSubstitution(lockstep, "1.5", "0.0"), value_type=float)
    twin = Node(
        package="robot_rl", executable="robot_rl_px4_twin", output="screen", emulate_tty=True,
        parameters=[values("robot", "real_time", "task", "cameras", "release")],
        condition=IfCondition(LaunchConfiguration("twin")),
    )  # fmt: skip
    supervisor = Node(
        package="robot_rl", executable="robot_rl_px4", output="screen", emulate_tty=True,
        parameters=[
            values("robot", "controller", "policy"), {"use_sim_time": in_lockstep, "wait_for_proposal": wait},
        ],
        on_exit=Shutdown(reason="the Supervisor has ended"),
    )  # fmt: skip
    policy = Node(
        package="robot_rl", executable="robot_rl_policy", output="screen", emulate_tty=True,
        parameters=[
            values("robot", "policy", "task", "horizon", "mode", "execute", "device", "threads"),
            {"use_sim_time": in_lockstep, "lockstep": in_lockstep},
        ],
        condition=IfCondition(NotEqualsSubstitution(LaunchConfiguration("policy"), "")),
    )  # fmt: skip
    record = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([ThisLaunchFileDir(), "record.launch.py"])),
        launch_arguments={"use_sim_time": lockstep}.items(), condition=IfCondition(LaunchConfiguration("record")),
    )  # fmt: skip
    return LaunchDescription([*declared, twin, supervisor, record, policy])


def values(*names: str) -> dict[str, ParameterValue]:
    """Launch arguments as parameters of the same name."""
    return {name: ParameterValue(LaunchConfiguration(name), value_type=ARGUMENTS[name][1]) for name in names}
