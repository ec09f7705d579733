from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "onestride_drivers"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Thin adapters between onestride's topics and drivers with messages of their own.",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(exclude=["test", "test.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", [str(path) for path in sorted(Path("launch").glob("*.py"))]),
        (f"share/{PACKAGE}/config", [str(path) for path in sorted(Path("config").glob("*.yaml"))]),
    ],
    zip_safe=False,
    entry_points={"console_scripts": [f"unitree = {PACKAGE}.unitree:main", f"trajectory = {PACKAGE}.trajectory:main"]},
)
