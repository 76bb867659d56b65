"""The `robot-rl` command: finds the subcommand, composes its Hydra configuration, and runs it.

Every configured command is `robot_rl/<command>.py` with `main(config)`, beside `configs/<command>.yaml`, whose comments
are its help. The commands of `PLAIN` take ordinary arguments instead and have `main(arguments)`.
"""

from __future__ import annotations

import difflib
import errno
import functools
import importlib
import itertools
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.interrupt import held_interrupts

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIGURED = {
    "demo": "the whole loop in a few minutes: collect, train, evaluate, report",
    "collect": "record demonstrations into an episode store",
    "train": "train a policy on episode stores",
    "finetune": "improve a policy by reinforcement learning in simulation",
    "classifier": "learn to recognise success, for finetune",
    "act": "try what a learner elsewhere wants tried, and send it what happened",
    "evaluate": "measure a policy in simulation or on recorded data",
    "deploy": "run a policy on a robot through ROS 2, or on its simulated twin",
    "teleop": "move a robot or its twin with a device, and record episodes",
    "identify": "find a quadrotor's parameters from the log of a flight",
}
PLAIN = {
    "export": "write a policy as ONNX, for deployment without torch",
    "data": "inspect, check, repair and annotate episode stores",
    "cameras": "list cameras, and check what they deliver and how late",
    "robots": "list robots, check a robot's file against a live ROS 2 graph, set up and calibrate arms",
    "vehicle": "take off, land and clear a stop of a vehicle under PX4, and faults of its twin",
    "doctor": "say what works on this machine, and the command that mends what does not",
}

USAGE = """robot-rl {version}: collect demonstrations, train policies, evaluate and deploy them.

usage: robot-rl <command> [key=value ...]

{commands}

options of demo, collect, train, finetune, classifier, act, evaluate, deploy, teleop and identify:
  --help                what the command does, and every key with its default
  --show                print the composed configuration and stop
  --multirun            run every combination of comma-separated values: seed=0,1,2 policy=flow_mlp,diffusion_cnn

Start with `robot-rl demo`. `robot-rl <command> --help` explains a command."""


INTERRUPTED = 128
"""Exit statuses from here on mean: ended by a signal."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

ROS = ("cyclonedds", "mcap", "rosbags")
"""The packages of the extra `ros`."""


class UsageError(ValueError):
    """The command line cannot be understood; the message says what exists."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status (0 done, 1 failed, 2 wrong usage, 130 interrupted)."""
    is_program = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    try:
        if command in ("--help", "-h", "help"):
            print(_usage())
            return 0
        if command in ("--version", "-V"):
            print(_version())
            return 0
        if command in PLAIN:
            plain = [item for item in rest if item != "--traceback"]
            return int(_program(command).main(plain) or 0)
        if command in CONFIGURED:
            return _run_configured(command, rest)
        raise UsageError(f"no command {command!r}{_closest(command, [*CONFIGURED, *PLAIN])}\n\n{_usage()}")
    except UsageError as error:
        print(f"robot-rl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if is_program:
            # Whoever is impatient presses it again while the interpreter goes down.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("\nrobot-rl: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        if "--traceback" in rest:
            raise
        print(f"robot-rl {command}: {_say(error)}", file=sys.stderr)
        print(f"(add --traceback to see where, `robot-rl {command} --help` for the keys)", file=sys.stderr)
        return 1


def compose(command: str, overrides: list[str]) -> DictConfig:
    """The configuration of a command with `key=value` overrides.

    Raises:
        UsageError: a key does not exist or a value has the wrong type; the message lists what exists.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import ConfigCompositionException, HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _parse(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_module("robot_rl.configs", version_base="1.3"):
        defaults = _defaults(command, tuple(item for item in overrides if _key(item) in _groups(command)))
        try:
            config = hydra_compose(command, overrides)
            OmegaConf.resolve(config)
        except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
            raise UsageError(_explain(command, defaults, overrides, error)) from error
    _check_types(command, defaults, config, overrides)
    return config


@functools.cache
def _defaults(command: str, chosen: tuple[str, ...]) -> DictConfig:
    """The configuration of a command with these of its groups, to be read only; within Hydra's initialisation."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException

    try:
        return hydra_compose(command, list(chosen))
    except HydraException as error:
        raise UsageError(_explain_choice(command, chosen, error)) from error


def _run_configured(command: str, rest: list[str]) -> int:
    overrides = [item for item in rest if not item.startswith("-")]
    flags = set(rest) - set(overrides)
    if unknown := flags - {"--help", "-h", "--show", "--multirun", "-m", "--traceback"}:
        raise UsageError(f"unknown option {' '.join(sorted(unknown))}; keys are given as key=value, without dashes")
    if wrong := [item for item in overrides if "=" not in item and not item.startswith("~")]:
        raise UsageError(f"{' '.join(wrong)}: expected key=value, for example task=lift")
    if flags & {"--help", "-h"}:
        print(_help(command, overrides))
        return 0
    if flags & {"--multirun", "-m"}:
        return _sweep(command, overrides, show="--show" in flags)
    config = compose(command, overrides)
    if "--show" in flags:
        _show(config)
        return 0
    return int(_program(command).main(config) or 0)


def _program(command: str) -> Any:
    with held_interrupts():
        return importlib.import_module(f"robot_rl.{command}")


def _sweep(command: str, overrides: list[str], show: bool) -> int:
    """Run every combination in turn, each in its own folder below `output`, and leave one table over the runs there."""
    from robot_rl.sweep import named_after, write_tables

    configs = []
    for job in _combinations(overrides):
        config = compose(command, job)
        varied = [item for item in job if item not in overrides]
        folder = Path(config.output or f"runs/{command}")
        if command == "train" and not config.output and not any(item.startswith("dataset=") for item in varied):
            folder /= _unquoted(named_after(config.dataset or ""))
        config.output = str(folder / (_unquoted("_".join(varied)) or "run"))
        configs.append(config)
    if show:
        for config in configs:
            _show(config)
        return 0
    module, status = _program(command), 0
    ended: dict[str, bool] = {}
    for number, config in enumerate(configs, 1):
        print(f"[{number}/{len(configs)}] {config.output}", flush=True)
        try:
            result = int(module.main(config) or 0)
        except Exception as error:
            print(f"robot-rl {command}: {config.output}: {_say(error)}", file=sys.stderr)
            result = 1
        ended[config.output] = result == 0
        status = max(status, result)
        if status >= INTERRUPTED:
            break
    print(write_tables(folder, ended))
    return status


def _unquoted(name: str) -> str:
    """Only what the grammar of overrides takes without quotes: the next command is given this path."""
    return re.sub(r"[^\w.-]+", "_", name)


def quoted(text: str) -> str:
    """A text as the value of an override: in quotes of its own, unless it is a path or a word of plain letters."""
    if re.fullmatch(r"(?!(?i:null|true|false|nan|inf)$)(\.{0,2}/|[A-Za-z_])[\w./-]*", text):
        return text
    escaped = text.replace('"', r"\"")
    return f'"{escaped}"'


def override(key: str, text: str) -> str:
    """`key=text` as it is typed in a shell."""
    return shlex.quote(f"{key}={quoted(text)}")


def _parse(overrides: list[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parsed = []
    for item in overrides:
        try:
            parsed.append(OverridesParser.create().parse_override(item))
        except HydraException as error:
            key, _, value = item.partition("=")
            reason = str(error).partition("\n")[0]
            advice = f"a text with such signs wants quotes of its own: {override(key, value)}"
            raise UsageError(f"{item}: cannot be read ({reason}); {advice}") from error
    return parsed


def _combinations(overrides: list[str]) -> Any:
    choices = [
        [f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()]
        if parsed.is_sweep_override()
        else [original]
        for original, parsed in zip(overrides, _parse(overrides), strict=True)
    ]
    return (list(job) for job in itertools.product(*choices))


def _say(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error}. The disk (or the quota) is full: free some space, then give the same command again."
    if isinstance(error, OSError) and error.errno in FORBIDDEN:
        return f"{error}. Mend the permissions there, or choose another path."
    if isinstance(error, ModuleNotFoundError) and error.name:
        of_ros = error.name.split(".")[0] in ROS
        return f"{error}: " + ('pip install "robot_rl[ros]"' if of_ros else "`robot-rl doctor` says how to mend that")
    expected = (ValueError, OSError, ImportError, RuntimeError)
    return str(error) if isinstance(error, expected) else f"{type(error).__name__}: {error}"


def _explain_choice(command: str, chosen: Sequence[str], error: Exception) -> str:
    for item in chosen:
        group, value = _key(item), item.partition("=")[2]
        choices = _groups(command)[group]
        if value not in choices:
            return f"{item}: no {group} {value!r}{_closest(value, [*choices])}; there are {', '.join(choices)}"
    return str(error)


def _explain(command: str, defaults: DictConfig, overrides: list[str], error: Exception) -> str:
    """What is wrong with the overrides, in terms of the keys that exist."""
    from omegaconf import DictConfig

    for item in overrides:
        # What is added below a key that exists is checked by who reads it.
        if (item.startswith("+") and _key(item).split(".")[0] in defaults) or _key(item) in _groups(command):
            continue
        node: Any = defaults
        walked: list[str] = []
        for part in _key(item).split("."):
            if not isinstance(node, DictConfig):
                return f"{item}: {'.'.join(walked)} is a value, it has no key {part!r}"
            if part not in node:
                owner = ".".join(walked) or f"robot-rl {command}"
                keys = ", ".join(map(str, node))
                return f"{item}: {owner} has no key {part!r}{_closest(part, list(node))}; the keys are {keys}"
            node = node._get_node(part)
            walked.append(part)
    return str(error)


def _check_types(command: str, defaults: DictConfig, config: DictConfig, overrides: list[str]) -> None:
    """A number stays a number: `steps=many` is an error here, not hours later. No key comes, and none goes."""
    from omegaconf import OmegaConf

    from robot_rl.kinds import kind_of

    if config.keys() - defaults.keys():
        raise UsageError(_explain(command, defaults, overrides, ValueError()))
    if gone := defaults.keys() - config.keys():
        raise UsageError(f"{', '.join(map(str, gone))}: no key can be left out; null stands for nothing: key=null")
    for item in overrides:
        if item.startswith(("+", "~")) or _key(item) in _groups(command):
            continue
        default, value = (_plain(OmegaConf.select(place, _key(item))) for place in (defaults, config))
        if value is None and not isinstance(default, dict | list):
            continue
        wanted, accepts = kind_of(_key(item), default)
        if not accepts(value):
            raise UsageError(f"{item}: expected {wanted}, got {value!r}")


def _plain(value: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _key(item: str) -> str:
    """The key of an override: `training.steps` of `++training.steps=10`."""
    return item.lstrip("+~").partition("=")[0]


@functools.cache
def _groups(command: str) -> dict[str, dict[str, str]]:
    """The configuration groups that a command's defaults list names, and the text of each of their files."""
    import yaml

    plain = yaml.safe_load(resources.files("robot_rl.configs").joinpath(f"{command}.yaml").read_text())
    places = ["robot_rl.configs", *(place.removeprefix("pkg://") for place in plain["hydra"]["searchpath"])]
    names = [next(iter(entry)).split("@")[0] for entry in plain["defaults"] if isinstance(entry, dict)]
    found: dict[str, dict[str, str]] = {}
    for name, place in itertools.product(names, places):
        folder = resources.files(place).joinpath(name)
        if folder.is_dir():
            files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".yaml"))
            found[name] = {file[:-5]: folder.joinpath(file).read_text() for file in files}
    return found


def _help(command: str, overrides: Sequence[str] = ()) -> str:
    """The keys of a command, and what the presets that were chosen set."""
    base = resources.files("robot_rl.configs").joinpath(f"{command}.yaml").read_text()
    text = [f"robot-rl {command}: {CONFIGURED[command]}", "", f"usage: robot-rl {command} [key=value ...]", ""]
    text += _keys(base)
    groups = _groups(command)
    for group, choices in groups.items():
        text += ["", f"{group}=  one of {', '.join(choices)} (`{group}=… --help` or `--show` prints what it sets)"]
    for group, choice in (item.split("=", 1) for item in overrides if "=" in item):
        if chosen := groups.get(group, {}).get(choice):
            for other, under in re.findall(r"override /(\w+): (\w+)", chosen):
                text += ["", f"{group}={choice} takes {other}={under}, which sets:", "", *_keys(groups[other][under])]
            text += ["", f"{group}={choice} sets:", "", *_keys(chosen)]
    return "\n".join(text)


def _keys(text: str) -> list[str]:
    """The lines of a configuration that are for people."""
    kept, skipping = [], False
    for line in text.splitlines():
        if line.startswith(("hydra:", "defaults:", "# @package")):
            skipping = True
        elif line and not line[0].isspace():
            skipping = False
        if not skipping:
            kept.append(line)
    return kept


def _show(config: DictConfig) -> None:
    from omegaconf import OmegaConf

    print(OmegaConf.to_yaml(config), end="")


def _usage() -> str:
    commands = "\n".join(f"  {name:10} {summary}" for name, summary in {**CONFIGURED, **PLAIN}.items())
    return USAGE.format(version=_version(), commands=commands)


def _version() -> str:
    from robot_rl import __version__

    return __version__


def _closest(word: str, known: list[Any]) -> str:
    close = difflib.get_close_matches(str(word), [str(name) for name in known], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


if __name__ == "__main__":
    sys.exit(main())
