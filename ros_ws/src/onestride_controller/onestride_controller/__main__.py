"""`python -m onestride_controller`."""

from onestride_controller.node import main

raise SystemExit(main())
