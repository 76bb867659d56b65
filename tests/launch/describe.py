"""Prints what a launch file declares and starts as JSON: `describe.py FILE name:=value …`, the stubs on the path."""

import json
import sys
from pathlib import Path

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.launch_description_sources import PythonLaunchDescriptionSource

path = Path(sys.argv[1])
context = LaunchContext(dict(argument.split(":=", 1) for argument in sys.argv[2:]), path.parent)
description = PythonLaunchDescriptionSource(str(path)).get_launch_description(context)
arguments = {
    action.name: {"default": action.default_value, "description": action.description, "choices": action.choices}
    for action in description.entities
    if isinstance(action, DeclareLaunchArgument)
}
started: list[dict] = []
try:
    description.visit(context, started)
except RuntimeError as error:
    print(json.dumps({"arguments": arguments, "error": str(error)}))
else:
    print(json.dumps({"arguments": arguments, "started": started}))
