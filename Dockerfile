# A robot computer: ROS 2 Jazzy on Ubuntu 24.04 with Python 3.12. See docs/deploy.md.
#   docker build -t robot_rl .
#   docker run --rm -it --network host --ipc host -v "$PWD/runs:/runs" robot_rl ros2 launch robot_rl deploy.launch.py policy:=/runs/demo
FROM ros:jazzy

RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        libegl1 libgl1 python3-numpy python3-venv \
        ros-jazzy-control-msgs ros-jazzy-rmw-cyclonedds-cpp \
    && rm -rf /var/lib/apt/lists/*

# The environment sees ROS 2's Python packages and keeps their NumPy 1.26: Jazzy's messages are compiled against NumPy 1.
# The prefix stands on AMENT_PREFIX_PATH, so that `ros2 launch` and `ros2 run` find what pip has installed.
RUN python3 -m venv --system-site-packages /opt/robot_rl
ENV PATH=/opt/robot_rl/bin:$PATH AMENT_PREFIX_PATH=/opt/robot_rl

COPY . /tmp/robot_rl
# robosuite has the models of panda and ur5e, for poses and self-collision; its metadata asks for more than is needed.
RUN pip install --no-cache-dir "numpy<2" "/tmp/robot_rl[export,ros]" \
    && pip install --no-cache-dir --no-deps robosuite==1.5.2 && rm -rf /tmp/robot_rl

# Nothing listens on a network until `-e ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET` asks for it.
ENV RMW_IMPLEMENTATION=rmw_cyclonedds_cpp ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
CMD ["ros2", "launch", "robot_rl", "deploy.launch.py", "--show-args"]
