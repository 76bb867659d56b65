"""`robot-rl data`: inspect, check, repair, annotate, edit and convert episode stores."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.data_convert import add_verb
from robot_rl.data_edit import add_verbs, numbers, progress_bar
from robot_rl.data_import import add_import_verb

if TYPE_CHECKING:
    from robot_rl.datasets.check import Finding


def main(arguments: list[str]) -> int:
    """Run one data tool; returns the exit status, 1 when a check found damage."""
    parser = argparse.ArgumentParser(prog="robot-rl data", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="verb", required=True)

    info = verbs.add_parser("info", help="contract, episodes, success, sizes and provenance of a store")
    info.add_argument("store", type=Path)
    info.add_argument("--json", action="store_true", help="print everything as JSON")
    info.set_defaults(run=_info)

    check = verbs.add_parser("check", help="verify every episode: lengths, frames, checksums, contract")
    check.add_argument("store", type=Path)
    check.add_argument("--repair", action="store_true", help="restore the store to its last committed state")
    check.set_defaults(run=_check)

    repair = verbs.add_parser("repair", help="restore a store to its last committed state, and check it")
    repair.add_argument("store", type=Path)
    repair.set_defaults(run=_check, repair=True)

    tag = verbs.add_parser("tag", help="append facts to episodes, for example success=true")
    tag.add_argument("store", type=Path)
    tag.add_argument("facts", nargs="+", metavar="key=value", help="value is JSON, as in 'tags=[\"blurry\"]', or text")
    tag.add_argument("--episodes", required=True, help="for example 0,3,7-9")
    tag.set_defaults(run=_tag)

    relabel = verbs.add_parser("relabel", help="change what is said of episodes: success, task, text")
    relabel.add_argument("store", type=Path)
    relabel.add_argument("--episodes", required=True, help="for example 0,3,7-9, or all")
    relabel.add_argument("--success", choices=("true", "false", "unknown"))
    relabel.add_argument("--task", help="name of the task")
    relabel.add_argument("--text", help="the instruction, in words")
    relabel.set_defaults(run=_relabel)

    stats = verbs.add_parser("stats", help="mean, spread and range of every feature and action element")
    stats.add_argument("store", type=Path)
    stats.add_argument("--episodes", help="for example 0,3,7-9, or all; default: the successful ones")
    stats.add_argument("--json", action="store_true", help="print everything as JSON, with 513 quantiles")
    stats.set_defaults(run=_stats)

    diff = verbs.add_parser("diff", help="compare two stores by content; exit status 1 when they differ")
    diff.add_argument("first", type=Path)
    diff.add_argument("second", type=Path)
    diff.set_defaults(run=_diff)

    view = verbs.add_parser("view", help="a page with clips, signals and facts of episodes; or the rerun viewer")
    view.add_argument("store", type=Path)
    view.add_argument("--episodes", help="for example 0,3,7-9, or all; default: the first 30")
    view.add_argument("--cameras", nargs="+", help="to show side by side; default: all")
    view.add_argument("--output", type=Path, help="the page; default: beside the store. With --rerun: a file for later")
    view.add_argument("--rerun", action="store_true", help="start the rerun viewer (extra `view`)")
    view.set_defaults(run=_view)

    add_verbs(verbs)
    add_verb(verbs)
    add_import_verb(verbs)
    options = parser.parse_args(arguments)
    return int(options.run(options))


def _info(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore

    store = EpisodeStore.open(options.store)
    facts = [store.facts(index) for index in range(len(store))]
    bytes_on_disk = sum(file.stat().st_blocks * 512 for file in Path(options.store).rglob("*") if file.is_file())
    summary: dict[str, Any] = {
        "path": str(options.store),
        "episodes": len(store),
        "successful": sum(fact.get("success") is True for fact in facts),
        "rows": store.num_rows,
        "seconds": round(store.num_rows / store.contract.rate_hz, 1),
        "megabytes_on_disk": round(bytes_on_disk / 1e6, 1),
        "tasks": sorted({str(fact["task"]) for fact in facts if fact.get("task")}),
        "sources": sorted({str(fact["source"]) for fact in facts if fact.get("source")}),
        "contract": store.contract.to_dict(),
        "provenance": store.provenance,
    }
    if options.json:
        print(json.dumps(summary, indent=2))
        return 0
    for key, value in summary.items():
        if key == "contract":
            print(f"{key:18} {value['name']}, {value['rate_hz']} Hz, executed by {value['controller'] or 'unnamed'}")
            for group in ("observation", "action"):
                for name, feature in value[group].items():
                    details = ", ".join(f"{k} {v}" for k, v in feature.items() if k not in ("names", "lower", "upper"))
                    print(f"  {group:12} {name:24} {details}")
        elif key == "provenance":
            print("provenance")
            for name, detail in value.items():
                print(f"  {name:16} {json.dumps(detail) if isinstance(detail, dict | list) else detail}")
        else:
            print(f"{key:18} {', '.join(value) if isinstance(value, list) else value}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from robot_rl.datasets.check import check, repair
    from robot_rl.datasets.layout import FACTS

    if options.repair:
        done = repair(options.store)
        print("\n".join(done or ["nothing to repair"]))
    with progress_bar("checking", 0) as progress:
        findings = check(options.store, progress)
    for finding in findings:
        print(finding)
    if findings:
        print(f"{len(findings)} findings in {options.store}")
        named = [finding for finding in findings if finding.where == FACTS]
        damaged = [finding for finding in findings if finding.where != FACTS]
        if named:
            print(
                "facts that are lost are set anew by `robot-rl data tag`, for example success=true; the data are there"
            )
        if not damaged:
            return 1
        if options.repair or _marked(options.store, damaged):
            print("what remains is lost; these episodes are marked as damaged, which leaves them out of training")
        else:
            print("`robot-rl data repair` (or `check --repair`) restores the last committed state; nothing is deleted")
        return 1
    print(f"{options.store}: all episodes are whole")
    return 0


def _marked(store: Path, findings: list[Finding]) -> bool:
    """Whether all that was found is of episodes that a repair has marked as damaged."""
    from robot_rl.datasets import EpisodeStore

    episodes = {finding.episode for finding in findings}
    if None in episodes:
        return False
    opened = EpisodeStore.open(store)
    return all(opened.facts(number).get("damaged") for number in episodes if number is not None)


def _tag(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore, journal

    store = EpisodeStore.open(options.store)
    facts = {}
    for item in options.facts:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise ValueError(f"{item}: expected key=value, for example success=true")
        try:
            facts[key] = json.loads(value)
        except json.JSONDecodeError:
            facts[key] = value
    if wrong := journal.wrong_facts(facts):
        raise ValueError("\n".join(wrong))
    episodes = numbers(options.episodes, len(store))
    store.annotate(episodes, **facts)
    print(f"{options.store}: {len(episodes)} episodes, {', '.join(f'{key}={value!r}' for key, value in facts.items())}")
    return 0


def _relabel(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore

    given: dict[str, Any] = {key: getattr(options, key) for key in ("task", "text")}
    facts = {key: value for key, value in given.items() if value is not None}
    if options.success is not None:
        facts["success"] = {"true": True, "false": False, "unknown": None}[options.success]
    if not facts:
        raise ValueError("nothing to change: give --success, --task or --text")
    store = EpisodeStore.open(options.store)
    episodes = numbers(options.episodes, len(store))
    store.annotate(episodes, **facts)
    print(f"{options.store}: {len(episodes)} episodes, {', '.join(f'{key}={value!r}' for key, value in facts.items())}")
    return 0


def _stats(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore
    from robot_rl.datasets.contract import element_names

    store = EpisodeStore.open(options.store)
    chosen = None if options.episodes is None else numbers(options.episodes, len(store))
    if not len(store.select(success=True) if chosen is None else chosen):
        raise ValueError(f"{options.store} holds no successful episode; choose some by --episodes")
    found = store.statistics(chosen)
    if options.json:
        print(json.dumps({name: statistics.to_dict() for name, statistics in found.items()}, indent=2))
        return 0
    columns = ("mean", "std", "min", "1 %", "median", "99 %", "max")
    print(f"{'':34}" + "".join(f"{column:>11}" for column in columns))
    for name, statistics in found.items():
        feature = store.contract.observation.get(name)
        names = element_names(feature) if feature is not None else store.contract.action_names
        quantiles = [statistics.quantile(q) for q in (0.01, 0.5, 0.99)]
        rows = [statistics.mean, statistics.std, statistics.min, *quantiles, statistics.max]
        for element, values in zip(names, zip(*(row.reshape(-1) for row in rows), strict=True), strict=True):
            label = f"{name}  {element}" if element != name else name
            print(f"{label:34.34}" + "".join(f"{value:11.4g}" for value in values))
    print(f"over {next(iter(found.values())).count} rows")
    return 0


def _view(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore

    store = EpisodeStore.open(options.store)
    episodes = numbers(options.episodes, len(store)) if options.episodes else list(range(min(len(store), 30)))
    if not episodes:
        raise ValueError(f"{options.store} holds no episode to show")
    if unknown := sorted({*(options.cameras or ())} - {*store.contract.cameras}):
        raise ValueError(f"no camera {', '.join(unknown)}; there are: {', '.join(store.contract.cameras) or 'none'}")
    with progress_bar("drawing", len(episodes)) as progress:
        if options.rerun:
            from robot_rl.rerun_log import log_episodes

            log_episodes(store, episodes, options.output, progress)
        else:
            from robot_rl.contact_sheet import write_contact_sheet

            output = options.output or store.path.with_suffix(".html")
            written = write_contact_sheet(store, output, episodes, options.cameras, progress)
            print(f"{written}: {len(episodes)} of {len(store)} episodes; open it in a browser")
    return 0


def _diff(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore
    from robot_rl.datasets.difference import difference

    with progress_bar("comparing", 0) as progress:
        found = difference(EpisodeStore.open(options.first), EpisodeStore.open(options.second), progress)
    for line in found.contract:
        print(f"contract: {line}")
    for path, only in ((options.first, found.only_first), (options.second, found.only_second)):
        if only:
            print(f"only in {path}: episodes {', '.join(map(str, only))}")
    for ours, theirs, key, one, other in found.facts:
        print(f"episode {ours} and {theirs}: {key} is {one!r} and {other!r}")
    print(f"{len(found.both)} episodes are in both" + (": the stores hold the same" if found.is_empty else ""))
    return 0 if found.is_empty else 1
