"""What robots' own ROS 2 drivers are told, as plain data: no ROS here."""
