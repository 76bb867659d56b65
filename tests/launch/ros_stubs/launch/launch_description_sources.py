"""Where a launch description comes from: a Python file with `generate_launch_description`."""

import runpy
from pathlib import Path

from launch import LaunchContext, LaunchDescription, SomeSubstitutions, perform


class PythonLaunchDescriptionSource:
    def __init__(self, launch_file_path: SomeSubstitutions) -> None:
        self.launch_file_path = launch_file_path

    def get_launch_description(self, context: LaunchContext) -> LaunchDescription:
        path = Path(perform(context, self.launch_file_path))
        context.directory = path.parent
        description = runpy.run_path(str(path))["generate_launch_description"]()
        assert isinstance(description, LaunchDescription)
        return description
