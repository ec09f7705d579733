"""`python -m onestride_controller`."""

import sys

try:
    from onestride_controller.node import main
except ModuleNotFoundError as error:
    sys.exit(f"onestride_controller needs {error.name}: pip install 'onestride[ros]', or source a ROS 2 installation")

raise SystemExit(main())
