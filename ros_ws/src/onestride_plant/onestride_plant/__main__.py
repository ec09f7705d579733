"""`python -m onestride_plant`."""

import sys

try:
    from onestride_plant.node import main
except ModuleNotFoundError as error:
    sys.exit(f"onestride_plant needs {error.name}: pip install 'onestride[ros]', or source a ROS 2 installation")

raise SystemExit(main())
