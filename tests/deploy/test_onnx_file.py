"""What an ONNX file carries beside its graph: read as the `onnx` package reads it, and no damage goes unseen."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from policy_samples import cube_contract, sample_chunk, sample_graph, signed

from onestride.deploy import onnx_file
from onestride.deploy.check import check_file
from onestride.deploy.runtime import create_session, import_onnxruntime, load_contract
from onestride.hardware.errors import OneStrideError

onnx = pytest.importorskip("onnx", reason="needs the extra `train`")

CONTRACT = cube_contract()
GRAPH = sample_graph(CONTRACT)
SMALL = onnx_file.sign(GRAPH)  # without a contract: small enough to try every bit
POLICY = signed(GRAPH, CONTRACT)
entries = st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=4)


def as_onnx_reads(data: bytes) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}


def with_duplicate(data: bytes, key: str) -> bytes:
    model = onnx.load_from_string(data)
    model.metadata_props.add(key=key, value="another")
    return model.SerializeToString()


# Metadata


@given(entries, entries)
@example({"Schlüssel": "größer als 1 µm — 位置 🤖"}, {"Schlüssel": ""})
@example({"": "no key"}, {"": "still none"})
def test_metadata_is_written_and_read_as_onnx_does(first, second):
    data = onnx_file.with_metadata(onnx_file.with_metadata(GRAPH, first), second)
    assert as_onnx_reads(data) == onnx_file.metadata(data, "test") == {**first, **second}
    assert onnx.load_from_string(data).graph == onnx.load_from_string(GRAPH).graph


def test_metadata_written_by_onnx_is_read_and_kept():
    model = onnx.load_from_string(GRAPH)
    model.metadata_props.add(key="author", value="Gauß")
    data = onnx_file.with_metadata(model.SerializeToString(), {"other": "1"})
    assert onnx_file.metadata(data, "test") == {"author": "Gauß", "other": "1"}


def test_a_duplicate_key_is_refused():
    data = with_duplicate(POLICY, onnx_file.CONTRACT_KEY)
    with pytest.raises(
        OneStrideError, match=r"test: metadata key 'onestride.contract' stands twice; refusing to guess"
    ):
        onnx_file.metadata(data, "test")


def test_onnxruntime_would_have_guessed():
    """Why duplicates are refused: the runtime hides them."""
    data = with_duplicate(onnx_file.with_metadata(GRAPH, {"key": "one"}), "key")
    session = import_onnxruntime().InferenceSession(data, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["key"] == "another"


@given(st.binary(max_size=200))
@example(b"\x72\x7f")
@example(b"\xff" * 11)
def test_arbitrary_bytes_are_read_or_refused(data):
    try:
        assert isinstance(onnx_file.metadata(data, "test"), dict)
    except OneStrideError as error:
        assert str(error).startswith("test: ")


# Integrity


def test_the_hash_is_that_of_the_file_with_its_own_digits_zeroed(tmp_path):
    path = tmp_path / "policy.onnx"
    path.write_bytes(POLICY)
    recorded = as_onnx_reads(POLICY)[onnx_file.HASH_KEY]
    blank = path.read_bytes().replace(recorded.encode(), b"0" * 64)
    assert recorded == hashlib.sha256(blank).hexdigest() == onnx_file.verify(POLICY, "test") == load_contract(path)[1]


@given(entries)
def test_signing_is_last_and_can_be_repeated(given_entries):
    data = onnx_file.sign(onnx_file.with_metadata(GRAPH, given_entries))
    assert as_onnx_reads(data) == {**given_entries, onnx_file.HASH_KEY: onnx_file.verify(data, "test")}
    assert onnx_file.sign(data) == data


def test_every_single_flipped_bit_is_seen():
    for position in range(len(SMALL)):
        for bit in range(8):
            damaged = bytearray(SMALL)
            damaged[position] ^= 1 << bit
            with pytest.raises(OneStrideError, match=r"^test: "):
                onnx_file.verify(bytes(damaged), "test")


def test_truncation_at_any_length_is_seen():
    for length in range(len(SMALL)):
        with pytest.raises(OneStrideError, match=r"^test: "):
            onnx_file.verify(SMALL[:length], "test")


@given(st.integers(0, len(POLICY) - 1), st.integers(1, 255))
def test_a_changed_byte_anywhere_in_a_policy_fails_its_integrity(tmp_path_factory, position, change):
    damaged = bytearray(POLICY)
    damaged[position] ^= change
    path = tmp_path_factory.mktemp("damaged") / "policy.onnx"
    path.write_bytes(damaged)
    findings, contract = check_file(path)
    assert contract is None
    assert [(finding.question, finding.passed) for finding in findings] == [("integrity", False)]
    assert str(path) in findings[0].detail


@given(st.binary(min_size=1, max_size=40), st.integers(0, len(SMALL)))
def test_inserted_bytes_are_seen(more, position):
    with pytest.raises(OneStrideError, match=r"^test: "):
        onnx_file.verify(SMALL[:position] + more + SMALL[position:], "test")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GRAPH, "carries no onestride.sha256: not exported by onestride, or truncated"),
        (b"", "carries no onestride.sha256"),
        (b"not an onnx file at all", "not an ONNX file, or truncated"),
        (onnx_file.with_metadata(GRAPH, {onnx_file.HASH_KEY: "abc"}), "expected 64 hex digits, once, got 'abc'"),
        (onnx_file.with_metadata(GRAPH, {onnx_file.HASH_KEY: "a" * 64}), "damaged or changed after export"),
        (onnx_file.with_metadata(GRAPH, {onnx_file.HASH_KEY: "ä" * 64}), "damaged or changed after export"),
        (with_duplicate(SMALL, onnx_file.HASH_KEY), "stands twice"),
    ],
)
def test_a_file_without_a_true_hash_is_refused(data, message):
    with pytest.raises(OneStrideError, match=message):
        onnx_file.verify(data, "test")


@pytest.mark.parametrize("name", ["missing.onnx", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(OneStrideError, match=r"policy file .*: (No such file|Is a directory)"):
        onnx_file.read_file(tmp_path / name)


# One output of many


def random_graph(seed: int) -> bytes:
    """A random acyclic graph of sums and products, of which five values are outputs."""
    from onnx import TensorProto, helper

    rng, values, nodes = np.random.default_rng(seed), ["x"], []
    for index in range(int(rng.integers(5, 20))):
        inputs = [str(name) for name in rng.choice(values, 2)]
        nodes.append(helper.make_node(str(rng.choice(["Add", "Mul", "Sub"])), inputs, [f"v{index}"]))
        values.append(f"v{index}")
    chosen = [str(name) for name in rng.choice(values[1:], 5, replace=False)]
    info = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", *chosen)}
    graph = helper.make_graph(nodes, "random", [info["x"]], [info[name] for name in chosen])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    return bytes(model.SerializeToString())


def nodes_of(model) -> list[str]:
    return [node.SerializeToString() for node in model.graph.node]


@given(st.integers(0, 2**32), st.integers(0, 4))
def test_the_output_that_is_left_keeps_exactly_the_nodes_it_depends_on(seed, index):
    whole = onnx.load_from_string(random_graph(seed))
    name = whole.graph.output[index].name
    single = onnx.load_from_string(onnx_file.with_output(whole.SerializeToString(), name))
    onnx.checker.check_model(single)
    reference = onnx.utils.Extractor(whole).extract_model(["x"], [name])
    assert [output.name for output in single.graph.output] == [name]
    assert nodes_of(single) == nodes_of(reference)
    assert single.graph.input == whole.graph.input
    assert single.opset_import == whole.opset_import


def test_a_graph_with_a_subgraph_keeps_every_node():
    """A branch of `If` uses outer values without naming them as inputs."""
    from onnx import TensorProto, helper

    def value(name: str):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [3])

    branch = helper.make_graph([helper.make_node("Add", ["outer", "outer"], ["b"])], "branch", [], [value("b")])
    nodes = [
        helper.make_node("Neg", ["x"], ["outer"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    graph = helper.make_graph(nodes, "g", [value("x")], [value("outer"), value("y")], [condition])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    session = create_session(model.SerializeToString(), "y", "CPUExecutionProvider", "test")
    np.testing.assert_array_equal(session.run(None, {"x": np.ones(3, np.float32)})[0], -2 * np.ones(3))


@pytest.mark.parametrize("nfe", CONTRACT.policy.nfe)
def test_onnxruntime_runs_the_output_that_is_left(nfe):
    rng = np.random.default_rng(nfe)
    observation = rng.normal(size=(1, 28)).astype(np.float32)
    noise = rng.normal(size=(1, 5, 5)).astype(np.float32)
    session = create_session(POLICY, f"actions_nfe{nfe}", "CPUExecutionProvider", "test")
    assert [output.name for output in session.get_outputs()] == [f"actions_nfe{nfe}"]
    (chunk,) = session.run(None, {"observation": observation, "noise": noise})
    np.testing.assert_allclose(chunk, sample_chunk(observation, noise, nfe), rtol=1e-6, atol=1e-7)


def test_an_output_that_is_not_there_is_refused():
    with pytest.raises(
        OneStrideError, match="unknown output: got 'actions_nfe8', available: actions_nfe1, actions_nfe2"
    ):
        create_session(POLICY, "actions_nfe8", "CPUExecutionProvider", "test")
