"""The plant alone, confined to this machine.

ros2 launch onestride_plant plant.launch.py scene:=SCENE namespace:=/x
ros2 service call /x/onestride_plant/reset std_srvs/srv/Trigger
"""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from onestride.deploy.confinement import simulated_environment


def generate_launch_description() -> LaunchDescription:
    """Arguments, confinement, node."""
    scene, robot = LaunchConfiguration("scene"), LaunchConfiguration("robot")
    domain = int(os.environ.get("ROS_DOMAIN_ID", "0"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("scene", description="folder of the exported scene"),
            DeclareLaunchArgument("robot", default_value="ur5e_2f85", description="robot description"),
            DeclareLaunchArgument("namespace", default_value="/onestride", description="of every topic"),
            *(SetEnvironmentVariable(name, value) for name, value in simulated_environment(domain).items()),
            Node(
                package="onestride_plant",
                executable="plant",
                name="onestride_plant",
                namespace=LaunchConfiguration("namespace"),
                arguments=["--scene", scene, "--robot", robot],
                output="screen",
            ),
        ]
    )
