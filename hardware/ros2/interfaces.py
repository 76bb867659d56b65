"""Messages, services and actions that robots speak and the type store lacks, as in their ROS 2 Jazzy packages.

Field names, types and order are the interface itself (std_srvs 5.3, rcl_interfaces 2.0, action_msgs 2.0 and
control_msgs 5 of ROS 2 Jazzy); services are split by `---` into request and response, actions into goal, result
and feedback.
"""

from __future__ import annotations

MESSAGES = {
    "control_msgs/msg/DynamicInterfaceValues": "std_msgs/Header header\nInterfaceValue states\nInterfaceValue commands",
    "control_msgs/msg/DynamicJointState": (
        "std_msgs/Header header\nstring[] joint_names\nInterfaceValue[] interface_values"
    ),
    "control_msgs/msg/GripperCommand": "float64 position\nfloat64 max_effort",
    "control_msgs/msg/InterfaceValue": "string[] interface_names\nfloat64[] values",
    "control_msgs/msg/JointComponentTolerance": """
        uint16 X_AXIS=1
        uint16 Y_AXIS=2
        uint16 Z_AXIS=3
        uint16 TRANSLATION=4
        uint16 ROTATION=5
        string joint_name
        uint16 component
        float64 position
        float64 velocity
        float64 acceleration""",
    "control_msgs/msg/JointJog": """
        std_msgs/Header header
        string[] joint_names
        float64[] displacements
        float64[] velocities
        float64 duration""",
    "control_msgs/msg/JointTolerance": "string name\nfloat64 position\nfloat64 velocity\nfloat64 acceleration",
    "control_msgs/msg/JointTrajectoryControllerState": """
        std_msgs/Header header
        string[] joint_names
        trajectory_msgs/JointTrajectoryPoint reference
        trajectory_msgs/JointTrajectoryPoint feedback
        trajectory_msgs/JointTrajectoryPoint error
        trajectory_msgs/JointTrajectoryPoint output
        string[] multi_dof_joint_names
        trajectory_msgs/MultiDOFJointTrajectoryPoint multi_dof_reference
        trajectory_msgs/MultiDOFJointTrajectoryPoint multi_dof_feedback
        trajectory_msgs/MultiDOFJointTrajectoryPoint multi_dof_error
        trajectory_msgs/MultiDOFJointTrajectoryPoint multi_dof_output
        float64 speed_scaling_factor""",
    "control_msgs/msg/MultiDOFCommand": "string[] dof_names\nfloat64[] values\nfloat64[] values_dot",
    "control_msgs/msg/MultiDOFStateStamped": "std_msgs/Header header\nSingleDOFState[] dof_states",
    "control_msgs/msg/SingleDOFState": """
        string name
        float64 reference
        float64 feedback
        float64 feedback_dot
        float64 error
        float64 error_dot
        float64 time_step
        float64 output""",
    "control_msgs/msg/SingleDOFStateStamped": "std_msgs/Header header\nSingleDOFState dof_state",
    "control_msgs/msg/SpeedScalingFactor": "float64 factor",
}

SERVICES = {
    "action_msgs/srv/CancelGoal": """
        GoalInfo goal_info
        ---
        int8 ERROR_NONE=0
        int8 ERROR_REJECTED=1
        int8 ERROR_UNKNOWN_GOAL_ID=2
        int8 ERROR_GOAL_TERMINATED=3
        int8 return_code
        GoalInfo[] goals_canceling""",
    "rcl_interfaces/srv/DescribeParameters": "string[] names\n---\nParameterDescriptor[] descriptors",
    "rcl_interfaces/srv/GetParameters": "string[] names\n---\nParameterValue[] values",
    "rcl_interfaces/srv/GetParameterTypes": "string[] names\n---\nuint8[] types",
    "rcl_interfaces/srv/ListParameters": """
        uint64 DEPTH_RECURSIVE=0
        string[] prefixes
        uint64 depth
        ---
        ListParametersResult result""",
    "rcl_interfaces/srv/SetParameters": "Parameter[] parameters\n---\nSetParametersResult[] results",
    "rcl_interfaces/srv/SetParametersAtomically": "Parameter[] parameters\n---\nSetParametersResult result",
    "std_srvs/srv/Empty": "---",
    "std_srvs/srv/SetBool": "bool data\n---\nbool success\nstring message",
    "std_srvs/srv/Trigger": "---\nbool success\nstring message",
}

ACTIONS = {
    "control_msgs/action/FollowJointTrajectory": """
        trajectory_msgs/JointTrajectory trajectory
        trajectory_msgs/MultiDOFJointTrajectory multi_dof_trajectory
        JointTolerance[] path_tolerance
        JointComponentTolerance[] component_path_tolerance
        JointTolerance[] goal_tolerance
        JointComponentTolerance[] component_goal_tolerance
        builtin_interfaces/Duration goal_time_tolerance
        ---
        int32 error_code
        int32 SUCCESSFUL=0
        int32 INVALID_GOAL=-1
        int32 INVALID_JOINTS=-2
        int32 OLD_HEADER_TIMESTAMP=-3
        int32 PATH_TOLERANCE_VIOLATED=-4
        int32 GOAL_TOLERANCE_VIOLATED=-5
        string error_string
        ---
        std_msgs/Header header
        string[] joint_names
        trajectory_msgs/JointTrajectoryPoint desired
        trajectory_msgs/JointTrajectoryPoint actual
        trajectory_msgs/JointTrajectoryPoint error
        string[] multi_dof_joint_names
        trajectory_msgs/MultiDOFJointTrajectoryPoint multi_dof_desired
        trajectory_msgs/MultiDOFJointTrajectoryPoint multi_dof_actual
        trajectory_msgs/MultiDOFJointTrajectoryPoint multi_dof_error""",
    "control_msgs/action/GripperCommand": """
        GripperCommand command
        ---
        float64 position
        float64 effort
        bool stalled
        bool reached_goal
        ---
        float64 position
        float64 effort
        bool stalled
        bool reached_goal""",
    "control_msgs/action/ParallelGripperCommand": """
        sensor_msgs/JointState command
        ---
        sensor_msgs/JointState state
        bool stalled
        bool reached_goal
        ---
        sensor_msgs/JointState state""",
}
