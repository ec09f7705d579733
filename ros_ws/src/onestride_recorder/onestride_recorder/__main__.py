"""`python -m onestride_recorder`."""

import sys

try:
    from onestride_recorder.node import main
except ModuleNotFoundError as error:
    sys.exit(f"onestride_recorder needs {error.name}: pip install 'onestride[ros]', or source a ROS 2 installation")

raise SystemExit(main())
