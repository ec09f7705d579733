"""The watchdog beside a controller, confined to this machine.

ros2 launch onestride_watchdog watchdog.launch.py robot:=ur5e_2f85 namespace:=/x
ros2 service call /x/onestride_watchdog/rearm std_srvs/srv/Trigger
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
    config = Path(get_package_share_directory("onestride_watchdog")) / "config" / "watchdog.yaml"
    domain = int(os.environ.get("ROS_DOMAIN_ID", "0"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("robot", default_value="ur5e_2f85", description="robot description"),
            DeclareLaunchArgument("namespace", default_value="/onestride", description="of every topic"),
            *(SetEnvironmentVariable(name, value) for name, value in simulated_environment(domain).items()),
            Node(
                package="onestride_watchdog",
                executable="watchdog",
                name="onestride_watchdog",
                namespace=LaunchConfiguration("namespace"),
                parameters=[str(config), {"robot": LaunchConfiguration("robot")}],
                output="screen",
            ),
        ]
    )
