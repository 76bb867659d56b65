"""A policy exported by the command line and run by onnxruntime does what it did in torch."""

from pathlib import Path

import numpy as np
import pytest

from robot_rl import cli
from robot_rl.datasets import EpisodeStore
from robot_rl.metric_log import read_results
from robot_rl.policies import build_policy, prediction, save_policy
from robot_rl.policies.onnx_policy import OnnxPolicy

from .conftest import MakeStore

pytest.importorskip("onnxruntime")
PROCESSES = {"gaussian": {"name": "gaussian"}, "ddpm": {"name": "ddpm", "train_steps": 4, "steps": 4}}


@pytest.fixture
def store(reach_store: MakeStore) -> EpisodeStore:
    return EpisodeStore.open(reach_store())


def _checkpoint(store: EpisodeStore, folder: Path, process: str) -> Path:
    config = {"process": PROCESSES[process], "denoiser": {"name": "mlp", "width": 16}, "action_horizon": 4}
    policy = build_policy(config, store.contract, store.statistics())
    return save_policy(policy, folder, {"environment": {"task": "reach"}})


@pytest.mark.usefixtures("reach_simulation")
def test_an_exported_policy_is_evaluated_like_the_one_in_torch(store: EpisodeStore, tmp_path: Path) -> None:
    folder = _checkpoint(store, tmp_path / "policy", "gaussian")
    assert cli.main(["export", str(folder), str(tmp_path / "onnx")]) == 0
    results = []
    for name in ("policy", "onnx"):
        arguments = [f"policy={tmp_path / name}", f"output={tmp_path / 'out' / name}", "episodes=6", "videos=0"]
        assert cli.main(["evaluate", "task=reach", f"dataset={store.path}", *arguments]) == 0
        results.append(read_results(tmp_path / "out" / name))
    torch_results, onnx_results = results
    assert onnx_results["success_rate"] == torch_results["success_rate"]
    assert onnx_results["offline_action_error"] == pytest.approx(torch_results["offline_action_error"], rel=1e-4)
    csv = [(tmp_path / "out" / name / "evaluation" / "episodes.csv").read_text() for name in ("policy", "onnx")]
    assert csv[0] == csv[1]


def test_draws_of_a_row_do_not_depend_on_the_rows_beside_it(store: EpisodeStore, tmp_path: Path) -> None:
    folder = _checkpoint(store, tmp_path / "policy", "ddpm")
    assert cli.main(["export", str(folder)]) == 0
    policy, _, made_by = prediction.load(folder / "onnx")
    assert isinstance(policy, OnnxPolicy)
    assert made_by["environment"] == {"task": "reach"}
    seen = {name: np.random.default_rng(0).uniform(size=(3, 2, 2)).astype(np.float32) for name in ("position", "goal")}

    def chunks(rows: slice) -> np.ndarray:
        generators = [prediction.new_generator(policy, seed) for seed in range(3)[rows]]
        return prediction.predict(policy, {name: value[rows] for name, value in seen.items()}, generators)

    together = chunks(slice(0, 3))
    np.testing.assert_allclose(together[1:2], chunks(slice(1, 2)), atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_exporting_again_replaces_an_export_and_nothing_else(store: EpisodeStore, tmp_path: Path) -> None:
    folder = _checkpoint(store, tmp_path / "policy", "gaussian")
    for _ in range(2):
        assert cli.main(["export", str(folder), str(tmp_path / "onnx")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".zarr") == ["onnx", "policy"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    assert cli.main(["export", str(folder), str(tmp_path / "photos")]) == 1
    assert (tmp_path / "photos" / "a.png").exists()
    assert cli.main(["export", str(tmp_path / "photos")]) == 1


@pytest.mark.parametrize("given", [["policy=runs/x"], ["runs/x", "output=onnx"]])
def test_a_folder_given_as_a_key_is_told(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["export", *given])
    assert "here the folder stands alone" in capsys.readouterr().err
