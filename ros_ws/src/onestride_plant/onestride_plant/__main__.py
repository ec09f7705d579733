"""`python -m onestride_plant`."""

from onestride_plant.node import main

raise SystemExit(main())
