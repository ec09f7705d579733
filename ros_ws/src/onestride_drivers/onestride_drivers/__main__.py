"""`python -m onestride_drivers ADAPTER`."""

import sys

try:
    from onestride_drivers import trajectory, unitree
except ModuleNotFoundError as error:
    sys.exit(f"onestride_drivers needs {error.name}: pip install 'onestride[ros]', or source a ROS 2 installation")

ADAPTERS = {"trajectory": trajectory.main, "unitree": unitree.main}

adapter = sys.argv[1] if len(sys.argv) > 1 else "none"
if adapter not in ADAPTERS:
    sys.exit(f"onestride_drivers: expected an adapter, got {adapter}, available: {', '.join(ADAPTERS)}")
raise SystemExit(ADAPTERS[adapter]())
