"""The controller node alone, confined to this machine.

ros2 launch onestride_controller controller.launch.py policy:=policy.onnx scene:=SCENE namespace:=/x
ros2 lifecycle set /x/onestride_controller configure
ros2 lifecycle set /x/onestride_controller activate
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from onestride.deploy.confinement import simulated_environment


def generate_launch_description() -> LaunchDescription:
    """Arguments, confinement, node."""
    config = Path(get_package_share_directory("onestride_controller")) / "config" / "controller.yaml"
    given = {name: LaunchConfiguration(name) for name in ("policy", "scene", "robot")}
    domain = int(os.environ.get("ROS_DOMAIN_ID", "0"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("policy", description="exported ONNX policy file"),
            DeclareLaunchArgument("scene", description="folder of the exported scene"),
            DeclareLaunchArgument("robot", default_value="ur5e_2f85", description="robot description"),
            DeclareLaunchArgument("namespace", default_value="/onestride", description="of every topic"),
            *(SetEnvironmentVariable(name, value) for name, value in simulated_environment(domain).items()),
            LifecycleNode(
                package="onestride_controller",
                executable="controller",
                name="onestride_controller",
                namespace=LaunchConfiguration("namespace"),
                parameters=[str(config), given],
                output="screen",
            ),
        ]
    )
