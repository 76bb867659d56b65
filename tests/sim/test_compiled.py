import llvmlite.binding as llvm
import numba
import numpy as np

from robot_rl.sim.compiled import compiled, compiled_lanes, widest


def reciprocal(values: np.ndarray) -> np.ndarray:
    result = np.empty_like(values)
    for index in range(values.size):
        result[index] = 1.0 / values[index]
    return result


def double(values: np.ndarray) -> np.ndarray:
    return 2.0 * values


def test_compiles_where_nothing_can_be_kept(monkeypatch):
    njit = numba.njit
    njit(double)(np.ones(3))  # the first compilation imports more of numba, which asks for a cache

    def njit_without_folder(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", njit_without_folder)
    assert compiled(double)(np.ones(3)).tolist() == [2, 2, 2]


def test_keeps_machine_code(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compiled(double)(np.ones(3)).tolist() == [2, 2, 2]
    assert list(tmp_path.rglob("*.nbc"))


def test_lanes_divide_by_zero_without_an_error():
    with np.errstate(divide="raise"):
        assert compiled_lanes(reciprocal)(np.zeros(2)).tolist() == [np.inf, np.inf]


def test_lanes_use_the_widest_vectors_of_the_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))  # what was kept has no assembly

    def twice(values: np.ndarray) -> None:
        widest()
        for index in range(values.size):
            values[index] *= np.float32(2)

    function, values = compiled_lanes(twice), np.ones(64, np.float32)
    function(values)
    assert (values == 2).all()
    (code,) = function.inspect_asm().values()
    assert ("zmm" in code) == llvm.get_host_cpu_features().get("avx512f", False)
