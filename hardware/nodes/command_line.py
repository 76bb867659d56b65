"""What all nodes do on the command line: `--help`, and mistakes in one line each instead of a traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from robot_rl.hardware.ros2.graph import GraphError

INTERRUPTED = 130
"""Exit status, as of a process that SIGINT has ended."""

SETTINGS = """
usage: {program} [--ros-args -p <parameter>:=<value> ... -r <name>:=<other name> ...]

docs/ros2.md lists the parameters under `{name}`; while the node runs, `ros2 param list` does, too."""


class NodeMain(Protocol):
    """The `main` of a node: `argv` without the program's name, by default the process's own. Gives the exit status."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def node_main(run: Callable[[Sequence[str]], int]) -> NodeMain:
    """`main` of a node that is called `<name>_node`; the help is what its file says of it.

    What the graph refuses (an argument, a variable, a value of the wrong type) ends it with status 2, an interrupt that
    nobody waits for with `INTERRUPTED`.
    """
    name = Path(run.__code__.co_filename).stem.removesuffix("_node")
    program = f"robot_rl_{name}"

    @functools.wraps(run)
    def main(argv: Sequence[str] | None = None) -> int:
        arguments = sys.argv[1:] if argv is None else argv
        if {"--help", "-h"} & {*arguments}:
            described = str(run.__globals__["__doc__"]).strip()
            print(f"{described}\n{SETTINGS.format(program=program, name=name)}")
            return 0
        try:
            return run(arguments)
        except GraphError as error:
            print(f"{program}: {error}\n(`{program} --help` says how it is started)", file=sys.stderr)
            return 2
        except KeyboardInterrupt:  # a second Ctrl-C, or one before there was a graph
            return INTERRUPTED

    return main
