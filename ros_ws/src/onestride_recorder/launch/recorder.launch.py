"""The recorder alone, confined to this machine.

ros2 launch onestride_recorder recorder.launch.py directory:=runs/record namespace:=/x
ros2 service call /x/onestride_recorder/start std_srvs/srv/Trigger
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from onestride.deploy.confinement import simulated_environment


def generate_launch_description() -> LaunchDescription:
    """Arguments, confinement, node."""
    config = Path(get_package_share_directory("onestride_recorder")) / "config" / "recorder.yaml"
    domain = int(os.environ.get("ROS_DOMAIN_ID", "0"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("directory", description="folder that takes the journals"),
            DeclareLaunchArgument("namespace", default_value="/onestride", description="of every topic"),
            *(SetEnvironmentVariable(name, value) for name, value in simulated_environment(domain).items()),
            Node(
                package="onestride_recorder",
                executable="recorder",
                name="onestride_recorder",
                namespace=LaunchConfiguration("namespace"),
                parameters=[str(config), {"directory": LaunchConfiguration("directory")}],
                output="screen",
            ),
        ]
    )
