"""The simulated robot as a ROS 2 node: MuJoCo in wall-clock time behind joint and gripper targets."""
