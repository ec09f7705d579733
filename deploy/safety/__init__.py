"""Filters with a stated claim, one idea per file, all `certify(state, nominal_action) -> Certified`."""
