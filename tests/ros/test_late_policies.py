"""A policy that is slower than its control period, in the node: fewer evaluations, or asked for early and blended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")
pytest.importorskip("onnx", reason="needs the extra `train`")

import onnx
from onnx import helper, numpy_helper

from onestride.deploy import onnx_file
from onestride.hardware.errors import OneStrideError

from .conftest import STEADY
from .patient import patient_robot
from .tiny_policy import contract, graph

SIZE = 1024  # of a square matrix whose square takes tens of milliseconds


def slow_policy(path: Path) -> Path:
    """Two evaluations take long, one does not; both give the same chunk."""
    model = onnx.load_model_from_string(graph(STEADY))
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([SIZE, 28], np.int64), "wide"),
            numpy_helper.from_array(np.zeros((28, SIZE), np.float32), "nothing_wide"),
            numpy_helper.from_array(np.array(0.0, np.float32), "zero_gain"),
        ]
    )
    slow = next(node for node in model.graph.node if "actions_nfe2" in node.output)
    slow.input[0] = "moved_slowly"
    model.graph.node.extend(
        [
            helper.make_node("Expand", ["observation", "wide"], ["many"]),
            helper.make_node("MatMul", ["many", "nothing_wide"], ["square"]),
            helper.make_node("MatMul", ["square", "square"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "zero_gain"], ["nothing_slowly"]),
            helper.make_node("Add", ["moved", "nothing_slowly"], ["moved_slowly"]),
        ]
    )
    nodes = [node for node in model.graph.node if node is not slow]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, slow])
    data = onnx_file.with_metadata(model.SerializeToString(), {onnx_file.CONTRACT_KEY: contract().model_dump_json()})
    path.write_bytes(onnx_file.sign(data))
    return path


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return slow_policy(tmp_path_factory.mktemp("slow") / "policy.onnx")


@pytest.fixture
def run(session, ground, slow, tmp_path):
    """Runs two seconds of the slow policy with some parameters; the node's report of them."""

    def one(**parameters):
        robot = str(patient_robot("ur5e_2f85", tmp_path))
        node = session.controller(ground, robot=robot, policy=slow, nfe=2, **parameters)
        supervisor = session.supervisor(session.plant(ground), node)
        supervisor.wait_for_services()
        supervisor.transition("configure")
        supervisor.trigger("onestride_plant/reset")
        supervisor.transition("activate")
        supervisor.spin(2.0)
        report = supervisor.report()
        supervisor.transition("deactivate")
        assert report["mode"] == "active", report["reason"]
        return report

    return one


def test_fewer_evaluations_are_taken_where_the_next_command_would_wait(run):
    report = run(adaptive_nfe=True)
    adaptive = report["adaptive_nfe"]
    assert adaptive["budget_ms"] == 5.0, "a control period"
    assert (adaptive["wanted"], adaptive["now"]) == (2, 1)
    assert adaptive["inferences"]["2"] == 3
    assert adaptive["late"] >= 3
    assert adaptive["inferences"]["1"] > 2


def test_asked_for_early_the_slow_chunk_is_there_in_time(run):
    report = run(chunk_blend=3)
    assert report["policy_us"]["p50"] > 5000, "longer than a control period"
    assert report["policy_rate_hz"] == pytest.approx(20, rel=0.05), "no step waits"


def test_a_policy_without_fewer_evaluations_cannot_adapt(session, ground):
    node = session.controller(ground, nfe=1, adaptive_nfe=True)
    supervisor = session.supervisor(session.plant(ground), node)
    supervisor.wait_for_services()
    with pytest.raises(OneStrideError, match=r"expected a policy that offers less than 1, got \[1, 2\]"):
        supervisor.transition("configure")
