"""The adapter `trajectory` beside a real robot's driver: not confined to this machine.

ros2 launch onestride_drivers trajectory.launch.py namespace:=/x
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description() -> LaunchDescription:
    """Arguments and node."""
    config = Path(get_package_share_directory("onestride_drivers")) / "config" / "drivers.yaml"
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="", description="of every topic that has no leading /"),
            Node(
                package="onestride_drivers",
                executable="trajectory",
                name="onestride_trajectory",
                namespace=LaunchConfiguration("namespace"),
                parameters=[str(config)],
                output="screen",
            ),
        ]
    )
