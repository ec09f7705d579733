"""What the controller node refuses, what it ignores and what it faults on, with a driver that misbehaves."""

from __future__ import annotations

import json
import sys
import threading
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from onestride.deploy.controller import Controller
from onestride.deploy.watchdog import Watch
from onestride.hardware.description import load_robot
from onestride_controller.node import FAILURE, SUCCESS, ControllerNode
from onestride_controller.supervisor import WATCHDOG

from .bystanders import patient_robot
from .own_watchdog import OwnWatchdog
from .recorder import ARM, COMMAND, GRIPPER, Driver, Participant, wait_for
from .tiny_policy import write_policy

ROBOT = load_robot("ur5e_2f85")
DEFAULT = [joint.default for joint in ROBOT.joints]


class InProcess:
    """A controller node in this process, so that its parameters and transitions are at hand."""

    def __init__(self, namespace, parameters):
        self.context = Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        given = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = ControllerNode(context=self.context, namespace=namespace, parameter_overrides=given)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def close(self):
        self.node.close()
        self._executor.shutdown(timeout_sec=1.0)
        self.context.try_shutdown()

    def status(self):
        return json.loads(self.node._json(recent=True))

    @property
    def refusal(self):
        return self.status()["refusal"]

    def mode(self):
        """The controller's mode, after serving the node's timers for a moment."""
        self._executor.spin_once(timeout_sec=0.02)
        return self.status()["mode"]


@pytest.fixture
def confined(session, monkeypatch):
    for name, value in session.environment.items():
        monkeypatch.setenv(name, value)
    return session


@pytest.fixture
def controller(confined, ground, tmp_path):
    """Makes controller nodes, of a policy that stays, for the driver's robot does not move.

    A refused one has its reason in the log as well.
    """
    made, policy = [], write_policy(tmp_path / "still.onnx")

    def make(**parameters):
        values = {"policy": str(policy), "scene": str(ground.scene), "soft_start": 0.0, **parameters}
        made.append(InProcess(confined.namespace, values))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def driver(confined):
    with Driver(confined.namespace, confined.environment, list(ROBOT.joint_names), list(DEFAULT)) as one:
        yield one


def other_robot(contract):
    return contract.model_copy(update={"robot": contract.robot.model_copy(update={"id": "panda"})})


def other_joint(contract):
    text = contract.model_dump_json().replace("wrist_3_joint", "wrist_9_joint")
    return type(contract).model_validate_json(text)


def other_gains(contract):
    stiffness = (1.0, *contract.robot.stiffness[1:])
    return contract.model_copy(update={"robot": contract.robot.model_copy(update={"stiffness": stiffness})})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_robot, "robot.id: contract has panda, robot ur5e_2f85 has ur5e_2f85"),
        (other_joint, "wrist_9_joint"),
        (other_gains, "robot.stiffness: contract has (1.0,"),
    ],
)
def test_a_policy_for_another_robot(controller, tmp_path, capfd, change, words):
    policy = write_policy(tmp_path / "other.onnx", change=change)
    one = controller(policy=str(policy))
    assert one.node.trigger_configure() == FAILURE
    assert words in one.refusal
    assert words in capfd.readouterr().err


def damaged(policy):
    data = bytearray(policy.read_bytes())
    data[200] ^= 1
    policy.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda policy: policy.unlink(), "No such file"),
        (damaged, "damaged or changed after export"),
        (lambda policy: policy.write_bytes(policy.read_bytes()[:300]), "truncated"),
    ],
)
def test_a_policy_file_that_is_not_whole(controller, tmp_path, spoil, words):
    policy = write_policy(tmp_path / "policy.onnx")
    spoil(policy)
    one = controller(policy=str(policy))
    assert one.node.trigger_configure() == FAILURE
    assert words in one.refusal


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"policy": ""}, "parameter policy: expected a path"),
        ({"robot": "ur6"}, "unknown robot: got 'ur6', available: "),
        ({"scene": "/nowhere"}, "not a scene"),
        ({"nfe": 3}, "available: 1, 2"),
        ({"simulated": False}, "expected the node that stops a real robot when this one dies"),
        ({"simulated": False, "watchdog": "dog"}, "expected true, or a permit of the gate"),
        ({"simulated": False, "watchdog": "dog", "permit": "/nowhere"}, "permit: cannot take /nowhere"),
    ],
)
def test_parameters_that_are_refused(controller, parameters, words):
    one = controller(**parameters)
    assert one.node.trigger_configure() == FAILURE
    assert words in one.refusal


def test_a_simulated_run_must_be_confined(controller, monkeypatch):
    one = controller()
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    assert one.node.trigger_configure() == FAILURE
    assert "expected ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST" in one.refusal


@pytest.mark.parametrize("way", ["publishes on", "subscribes to"])
def test_a_stranger_on_a_command_topic(controller, confined, way):
    with Participant("stranger", confined.namespace, confined.environment) as stranger:
        if way == "publishes on":
            endpoint = stranger.node.create_publisher(Float64MultiArray, ARM, COMMAND)
        else:
            endpoint = stranger.node.create_subscription(Float64MultiArray, ARM, print, COMMAND)
        one = controller()
        assert one.node.trigger_configure() == FAILURE
        assert f"{confined.namespace}/stranger {way} {ARM}" in one.refusal
        endpoint.destroy()
        wait_for(lambda: one.node.trigger_configure() == SUCCESS, "a quiet neighbourhood")


def test_a_declared_writer_is_not_a_stranger(controller, confined):
    with Participant("watchdog", confined.namespace, confined.environment) as watchdog:
        watchdog.node.create_publisher(Float64MultiArray, ARM, COMMAND)
        one = controller(declared_writers=["watchdog"])
        assert one.node.trigger_configure() == SUCCESS


def test_a_second_controller_of_the_same_name_is_a_stranger(controller):
    assert controller().node.trigger_configure() == SUCCESS
    second = controller()
    assert second.node.trigger_configure() == FAILURE
    assert f"onestride_controller publishes on {GRIPPER}" in second.refusal


@pytest.mark.usefixtures("driver")
def test_a_declared_writer_may_be_restarted_between_two_activations(controller, confined):
    topic = f"{confined.namespace}/{ARM}"
    one = controller(declared_writers=["dog"])
    for _ in range(2):
        with Participant("dog", confined.namespace, confined.environment) as dog:
            dog.node.create_publisher(Float64MultiArray, ARM, COMMAND)
            wait_for(lambda: "dog" in names(one.node.get_publishers_info_by_topic(topic)), "the dog")
            if one.status()["activations"] == 0:
                assert one.node.trigger_configure() == SUCCESS
            assert one.node.trigger_activate() == SUCCESS, one.refusal
            assert one.node.trigger_deactivate() == SUCCESS
        wait_for(lambda: "dog" not in names(one.node.get_publishers_info_by_topic(topic)), "its end", 30.0)


def names(endpoints):
    return {info.node_name for info in endpoints}


def test_a_session_that_cannot_be_opened_leaves_nothing(controller, capfd):
    """The last that is opened is refused: the middleware has no topics of that name."""
    node = controller(watchdog="no name!").node
    threads, endpoints = threading.active_count(), [*node.publishers, *node.subscriptions]
    assert node.trigger_configure() != SUCCESS
    assert "'no name!/state'" in capfd.readouterr().err
    assert [*node.publishers, *node.subscriptions] == endpoints
    wait_for(lambda: threading.active_count() <= threads, "the inference's thread to end")


def active(controller, **parameters):
    """An active controller."""
    one = controller(**parameters)
    assert one.node.trigger_configure() == SUCCESS, one.refusal
    assert one.node.trigger_activate() == SUCCESS, one.refusal
    time.sleep(0.2)
    assert one.mode() == "active", one.status()["reason"]
    return one


def faults(one):
    wait_for(lambda: one.mode() == "fault", "a fault", timeout=5.0)
    return one.status()["reason"]


def test_not_a_number_in_the_joint_state(controller, driver, capfd):
    one = active(controller)
    driver.position = [*DEFAULT[:2], float("nan"), *DEFAULT[3:]]
    reason = faults(one)
    assert "not finite" in reason
    wait_for(lambda: one.mode() and f"mode fault: {reason}" in capfd.readouterr().err, "the log to say so", 2.0)
    driver.position = list(DEFAULT)
    assert one.node.trigger_deactivate() == SUCCESS
    assert one.node.trigger_activate() == FAILURE
    assert "a fault is latched" in one.refusal


def test_not_a_number_in_another_stream(controller, driver):
    one = active(controller)
    driver.scalar = float("nan")
    assert "gripper_contact" in faults(one)


def test_not_a_number_before_activation(controller, driver):
    driver.position = [float("inf")] * 7
    one = controller()
    assert one.node.trigger_configure() == SUCCESS
    assert one.node.trigger_activate() == FAILURE
    assert "cannot activate: measured position: not finite" in one.refusal


def test_joint_states_without_names_are_ignored_and_counted_until_stale(controller, driver):
    one = active(controller)
    driver.names = []
    assert "stream joints is stale" in faults(one)
    assert one.status()["streams"]["joints"]["empty name"] > 0


def test_joint_states_without_names_cannot_activate(controller, driver):
    driver.names = []
    one = controller()
    assert one.node.trigger_configure() == SUCCESS
    assert one.node.trigger_activate() == FAILURE
    assert "no sample within 2 s from: joints (not taken: " in one.refusal
    assert "with empty name" in one.refusal


def test_repeated_stamps_are_a_stalled_stream(controller, driver):
    one = active(controller)
    driver.stamps = False
    assert "is stale" in faults(one)
    assert one.status()["streams"]["joints"]["stamp not newer"] > 0


def test_a_silent_driver_is_a_stalled_stream_and_a_short_gap_is_not(controller, driver):
    one = active(controller)
    driver.paused = True
    time.sleep(0.03)
    driver.paused = False
    time.sleep(0.2)
    assert one.mode() == "active"
    driver.paused = True
    assert "is stale" in faults(one)


def test_joints_are_taken_by_name_from_any_order(controller, driver):
    order = [3, 0, 6, 5, 1, 2, 4]
    driver.names = [ROBOT.joint_names[place] for place in order] + ["spare_joint"]
    driver.position = [DEFAULT[place] for place in order] + [9.0]
    sent = []
    driver.node.create_subscription(Float64MultiArray, ARM, lambda message: sent.append(list(message.data)), COMMAND)
    one = active(controller)
    assert one.node.trigger_deactivate() == SUCCESS
    wait_for(lambda: sent, "commands")
    assert sent[0] == pytest.approx(DEFAULT[:6], abs=0.02)


def test_rearming_an_active_node_leaves_it_idle_until_activated_anew(controller, driver, monkeypatch):
    one = active(controller)
    driver.paused = True
    faults(one)
    driver.paused = False
    with monkeypatch.context() as moving:
        moving.setattr(Controller, "at_rest", False)
        answer = one.node._on_rearm(None, Trigger.Response())
        assert (answer.success, answer.message) == (False, "cannot rearm: the robot is still being brought to rest")
    assert one.mode() == "fault"
    wait_for(lambda: one.node._on_rearm(None, Trigger.Response()).success, "the robot at rest", timeout=2.0)
    wait_for(lambda: one.mode() == "idle", "the fault to be cleared", timeout=2.0)
    assert one.node.trigger_deactivate() == SUCCESS
    assert one.node.trigger_activate() == SUCCESS, one.refusal
    assert one.mode() == "active"


def test_what_cannot_be_freed_does_not_clear_a_fault(controller, driver):
    one = active(controller)
    driver.paused = True
    reason = faults(one)
    driver.paused = False

    def cannot():
        raise OSError("the middleware is gone")

    one.node._session._opened.callback(cannot)
    assert one.node.trigger_deactivate() == SUCCESS
    assert one.node.trigger_cleanup() != SUCCESS
    assert (one.mode(), one.status()["reason"]) == ("fault", reason)


# With a watchdog


@pytest.fixture
def watched(controller, confined, driver, tmp_path):
    """An active controller and the watchdog that hears it."""
    del driver
    robot = patient_robot(tmp_path / "patient.yaml")
    with OwnWatchdog(confined.namespace, confined.environment, robot) as watchdog:
        one = active(controller, robot=str(robot), watchdog=WATCHDOG)
        wait_for(lambda: watchdog.judge.watch is Watch.WATCHING, "the watchdog to hear it")
        yield one, watchdog.judge


def is_taken_over(one, judge):
    """The watchdog stops the robot, and can be rearmed: the node says that it is idle once it knows."""
    wait_for(lambda: one.mode() and judge.watch is Watch.STOPPING and judge._back, "the takeover", timeout=10.0)
    judge.rearm()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_control_thread_that_dies_is_a_fault_and_silence(watched):
    one, judge = watched
    one.node._session._thread.post(sys.exit)  # what no `except Exception` catches
    assert faults(one) == "the control thread has died"
    is_taken_over(one, judge)
    assert judge.stops == 1
    assert one.node._on_rearm(None, Trigger.Response()).success
    assert one.node.trigger_deactivate() == SUCCESS
    assert one.node.trigger_activate() == SUCCESS, one.refusal


def test_a_stop_that_is_late_is_left_to_the_watchdog(watched):
    one, judge = watched
    one.node._session._stop_within = 0.0
    assert one.node.trigger_deactivate() != SUCCESS
    assert "did not come to rest" in one.status()["reason"]
    assert "did not come to rest" in one.node._on_rearm(None, Trigger.Response()).message
    is_taken_over(one, judge)
    assert one.node._on_rearm(None, Trigger.Response()).success


def test_rearmed_while_active_it_is_not_missed(watched, driver):
    one, judge = watched
    driver.paused = True
    faults(one)
    wait_for(lambda: one.node._on_rearm(None, Trigger.Response()).success, "the robot at rest", timeout=2.0)
    driver.paused = False
    ended = time.monotonic() + 1.5
    wait_for(lambda: one.mode() and time.monotonic() > ended, "time to pass")
    assert (one.mode(), judge.watch, judge.stops) == ("idle", Watch.WAITING, 0)
