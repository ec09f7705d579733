"""`python -m onestride_watchdog`."""

import sys

try:
    from onestride_watchdog.node import main
except ModuleNotFoundError as error:
    sys.exit(f"onestride_watchdog needs {error.name}: pip install 'onestride[ros]', or source a ROS 2 installation")

raise SystemExit(main())
