"""Reproducible benchmarks of learning: tables of tasks, agents and seeds, each cell one resumable training."""
