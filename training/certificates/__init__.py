"""Learning, proving and exporting Lyapunov and barrier functions of known, low-dimensional systems."""
