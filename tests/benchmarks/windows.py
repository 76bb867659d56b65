"""How fast training windows are read, and in how much memory: this package against LeRobot's own loader.

    python tests/benchmarks/windows.py --cache FOLDER --peer peer/bin/python

The workload: 50 episodes of 200 steps of Lift with two cameras of 84×84, rendered once by robosuite (ten minutes, kept
in `--cache`). A window is two observations and 16 actions; batches of 64, shuffled; one process and one thread on each
side, taking short turns. The large store holds the same episodes 200 times: 10 000 episodes and 2 million steps, its
rows written out, its frame files linked to the same bytes.

`--peer` is the Python of an environment that holds LeRobot, which cannot share one with this package:

    python -m venv peer && peer/bin/pip install lerobot==0.4.4 "numpy<2.3"

(tests/benchmarks/peers/lerobot_loader.py says how without CUDA). The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import machine

SCRIPT = Path(__file__).absolute()
PEERS = SCRIPT.parent / "peers"
ENCODINGS = ("jpeg", "lz4", "raw")
STATES = {"joint_position": "rad", "gripper_opening": "m", "cube_pose": ""}
CAMERAS = ("agentview", "robot0_eye_in_hand")
OBS_HORIZON, ACTION_HORIZON, BATCH_SIZE = 2, 16, 64
COPIES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks/windows"), help="keeps frames and stores")
    parser.add_argument("--peer", type=Path, help="Python of an environment with LeRobot")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9, help="turns that every loader takes")
    parser.add_argument("--seconds", type=float, default=3.0, help="per turn: some blocks of samples")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.workers)
        return

    cache = options.cache.absolute()
    frames = cache / f"frames_{options.episodes}x{options.steps}"
    if not (frames / "workload.json").exists():
        recorder = [sys.executable, PEERS / "robosuite_frames.py", frames, options.episodes, options.steps]
        subprocess.run([str(part) for part in recorder], stdout=sys.stderr, check=True)
    stores = {encoding: cache / f"{encoding}_{options.episodes}x{options.steps}.zarr" for encoding in ENCODINGS}
    for encoding, path in stores.items():
        write(frames, path, encoding)
    raw_bytes = sum((frames / f"{camera}.npy").stat().st_size for camera in CAMERAS)
    large = {encoding: stores[encoding].with_name(f"large_{stores[encoding].name}") for encoding in ("jpeg", "lz4")}
    for encoding, path in large.items():
        enlarge(stores[encoding], path)
    peers = lerobot_datasets(options.peer.absolute(), frames, cache) if options.peer else {}

    commands: dict[str, list[Any]] = {}
    for encoding in ENCODINGS:
        commands[encoding] = [SCRIPT, "--measure", stores[encoding]]
        if encoding in large:
            commands[f"{encoding} large"] = [SCRIPT, "--measure", large[encoding]]
    commands["jpeg, 2 workers"] = [*commands["jpeg"], "--workers", 2]
    commands["jpeg large, 2 workers"] = [*commands["jpeg large"], "--workers", 2]
    commands["lz4, 2 workers"] = [*commands["lz4"], "--workers", 2]
    loaders = {name: Loader([sys.executable, *command]) for name, command in commands.items()}
    for kind, dataset in peers.items():
        loaders[f"LeRobot {kind}"] = Loader([options.peer.absolute(), PEERS / "lerobot_loader.py", "read", dataset])
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in loaders}
    for number in range(options.rounds):
        for name, loader in loaders.items():
            turns[name].append(loader.turn(options.seconds))
        print(f"\rround {number + 1} of {options.rounds}", end="", file=sys.stderr)
    print(file=sys.stderr)
    totals = {name: loader.finish() for name, loader in loaders.items()}

    figures = {name: {**totals[name], **summary(rounds)} for name, rounds in turns.items()}
    for encoding in ENCODINGS:
        figures[encoding]["percent_of_raw"] = 100 * frame_bytes(stores[encoding]) / raw_bytes
    for encoding in large:
        pairs = zip(turns[f"{encoding} large"], turns[encoding], strict=True)
        figures[f"{encoding} large"]["share_of_small_store"] = statistics.median(
            big["windows_per_cpu_second"] / small["windows_per_cpu_second"] for big, small in pairs
        )
    report(figures)
    ratios = {}
    for kind in peers:
        pairs = list(zip(turns["jpeg"], turns[f"LeRobot {kind}"], strict=True))
        ratios[kind] = {
            unit: statistics.median(own[unit] / peer[unit] for own, peer in pairs)
            for unit in ("windows_per_second", "windows_per_cpu_second")
        }
        wall, cpu = ratios[kind].values()
        print(f"jpeg against LeRobot {kind}: {wall:.0f} × in windows/s, {cpu:.0f} × per CPU second")
    if not peers:
        print("LeRobot was not measured: --peer names the Python of an environment that holds it, see --help")
    print(
        json.dumps({
            "figures": figures,
            "ratio_to_lerobot": ratios,
            "machine": machine("numpy", "torch", "imagecodecs", "zarr"),
        })
    )


def measure(path: Path, workers: int) -> None:
    """Read windows for as many seconds as each line of the standard input says, and print what that gave.

    At the end: the time to open the store, and the peak of memory beyond that of the imported libraries.
    """
    import torch

    from robot_rl.datasets.prefetch import BATCHES_AHEAD
    from robot_rl.datasets.store import EpisodeStore
    from robot_rl.datasets.windows import Windows

    torch.set_num_threads(1)
    torch.empty(1).numpy()
    imported = memory("VmRSS")
    started, busy = time.perf_counter(), time.process_time()
    windows = Windows([EpisodeStore.open(path)], OBS_HORIZON, ACTION_HORIZON, batch_size=BATCH_SIZE, workers=workers)
    opened = {"open_seconds": time.perf_counter() - started, "open_cpu_seconds": time.process_time() - busy}
    stream = iter(windows)
    first = next(stream)
    tensors = [*first.pop("observation").values(), *first.values()]
    batch_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    del first, tensors
    for _ in range(100):
        next(stream)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        # What workers prepared while the other loaders had their turns does not count.
        for _ in range(BATCHES_AHEAD * workers):
            next(stream)
        number, started, busy = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < float(line):
            next(stream)
            number += BATCH_SIZE
        elapsed, busy = time.perf_counter() - started, time.process_time() - busy
        print(json.dumps({"windows_per_second": number / elapsed, "windows_per_cpu_second": number / busy}), flush=True)
    # Beside the queue there are the batch that the consumer holds and the one that is being made for it.
    queue = batch_bytes * (workers * BATCHES_AHEAD + 2) / 1e6
    peak = memory("VmHWM")
    print(json.dumps({**opened, "queue_mb": queue, "memory_above_queue_mb": peak - imported - queue, "peak_mb": peak}))


def memory(field: str) -> float:
    """A figure of this process in MB: VmRSS now, VmHWM at its peak; both with mapped pages of files."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1e3


class Loader:
    """A process that reads windows when told to, from elsewhere: here `import datasets` would find our folder."""

    def __init__(self, command: list[Any]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, cwd="/", text=True,
        )  # fmt: skip
        self._answer()

    def turn(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def finish(self) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.close()
        totals = self._answer()
        self._process.wait()
        return totals

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"this failed, run it by hand to see why: {' '.join(map(str, self._process.args))}")
        return dict(json.loads(line))


def contract() -> dict[str, Any]:
    states = {"joint_position": 7, "gripper_opening": 1, "cube_pose": 7}
    observation: dict[str, Any] = {name: {"shape": [size], "unit": STATES[name]} for name, size in states.items()}
    observation |= {camera: {"shape": [84, 84, 3], "dtype": "uint8", "kind": "image"} for camera in CAMERAS}
    return {"name": "lift", "rate_hz": 20, "observation": observation, "action": {"osc": {"shape": [7]}}}


def write(frames: Path, path: Path, encoding: str) -> None:
    """Record the workload into a store, unless it is there."""
    import numpy as np

    if path.exists():
        return
    beside = path.with_name(f"unfinished_{path.name}")
    shutil.rmtree(beside, ignore_errors=True)
    arrays = {name: np.load(frames / f"{name}.npy", mmap_mode="r") for name in (*STATES, *CAMERAS, "action")}
    append(arrays, beside, encoding)
    beside.rename(path)


def append(arrays: dict[str, Any], path: Path, encoding: str) -> None:
    """Record episodes `arrays` [E, T + 1, ...] (`action` [E, T, A]) into a new store."""
    from robot_rl.datasets.contract import Contract
    from robot_rl.datasets.store import EpisodeStore

    EpisodeStore.create(path, Contract.from_dict(contract()), encoding=encoding)
    with EpisodeStore.append(path) as writer:
        for number, actions in enumerate(arrays["action"]):
            rows = {name: arrays[name][number] for name in (*STATES, *CAMERAS)}
            with writer.episode(task="lift", source="random") as episode:
                for step, action in enumerate(actions):
                    episode.add({name: values[step] for name, values in rows.items()}, action)
                episode.finish({name: values[-1] for name, values in rows.items()}, success=True)


def enlarge(small: Path, path: Path) -> None:
    """Make a store with every episode of a small one `COPIES` times: rows are written, frame files are hard links."""
    import numpy as np

    from robot_rl.datasets.chunks import ChunkWriter
    from robot_rl.datasets.disk import Disk
    from robot_rl.datasets.layout import EPISODE_ENDS, FACTS
    from robot_rl.datasets.store import EpisodeStore

    if path.exists():
        return
    source, disk = EpisodeStore.open(small), Disk()
    beside = path.with_name(f"unfinished_{path.name}")
    shutil.rmtree(beside, ignore_errors=True)
    EpisodeStore.create(beside, source.contract, encoding=source.layout.encoding)
    writers = {name: ChunkWriter(beside / name, disk) for name in source.layout.arrays}
    shift = {}
    for camera in CAMERAS:
        packed = source.array(f"frames/{camera}/bytes")
        chunks = -(-len(packed) // packed.chunk_rows)
        shift[camera] = chunks * packed.chunk_rows
        for copy in range(COPIES):
            for chunk in range(chunks):
                target = beside / f"frames/{camera}/bytes/c.{copy * chunks + chunk}"
                target.hardlink_to(packed.chunk_path(chunk))
        writers[f"frames/{camera}/bytes"].set_length(COPIES * shift[camera])
    for name in (*source.layout.row_arrays, *source.layout.episode_arrays):
        array = source.array(name)
        rows = array.slice(0, len(array))
        for copy in range(COPIES):
            moved = copy * shift[name.split("/")[1]] if name.endswith("/offset") else 0
            writers[name].append(rows + moved if moved else rows)
        writers[name].set_length(writers[name].length)
    ends = source.episode_ends[None] + np.arange(COPIES)[:, None] * source.num_rows
    writers[EPISODE_ENDS].append(ends.reshape(-1))
    writers[EPISODE_ENDS].set_length(ends.size)
    facts = [{"episode": number, "begin": source.facts(number % len(source))} for number in range(ends.size)]
    (beside / FACTS).write_text("".join(json.dumps(line) + "\n" for line in facts))
    beside.rename(path)


def lerobot_datasets(peer: Path, frames: Path, cache: Path) -> dict[str, Path]:
    datasets = {kind: cache / f"lerobot_{kind}_{frames.name}" for kind in ("image", "video")}
    for kind, path in datasets.items():
        if not (path / "meta" / "info.json").exists():
            print(f"writing the episodes as a LeRobot data set of {kind}s", file=sys.stderr)
            command = [peer, PEERS / "lerobot_loader.py", "write", frames, path, kind]
            subprocess.run(
                [str(part) for part in command], stdout=sys.stderr, stderr=subprocess.PIPE, check=True, cwd="/"
            )
    return datasets


def frame_bytes(store: Path) -> int:
    """Bytes of all encoded frames of a store, without the unused rest of the last chunk."""
    import numpy as np

    from robot_rl.datasets.store import EpisodeStore

    opened = EpisodeStore.open(store)
    sizes = [opened.array(f"frames/{camera}/size") for camera in CAMERAS]
    return int(sum(np.sum(size.slice(0, len(size)), dtype=np.int64) for size in sizes))


def summary(turns: list[dict[str, Any]]) -> dict[str, float]:
    """The median over the turns."""
    return {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}


def report(figures: dict[str, dict[str, float]]) -> None:
    print(
        f"{'':24}{'windows/s':>11}{'per CPU s':>11}{'% of raw':>10}{'open s':>9}{'MB above queue':>16}{'of small':>10}"
    )
    for name, row in figures.items():
        cells = (
            (f"{row['windows_per_second']:.0f}", 11),
            (f"{row['windows_per_cpu_second']:.0f}", 11),
            (f"{row['percent_of_raw']:.1f}" if "percent_of_raw" in row else "", 10),
            (f"{row['open_seconds']:.3f}" if "open_seconds" in row else "", 9),
            (f"{row['memory_above_queue_mb']:.0f}" if "memory_above_queue_mb" in row else "", 16),
            (f"{row['share_of_small_store']:.0%}" if "share_of_small_store" in row else "", 10),
        )
        print(f"{name:24}" + "".join(f"{text:>{width}}" for text, width in cells))


if __name__ == "__main__":
    main()
