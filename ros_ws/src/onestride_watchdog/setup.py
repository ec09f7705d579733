from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "onestride_watchdog"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Stops a robot whose onestride controller has died.",
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
    entry_points={"console_scripts": [f"watchdog = {PACKAGE}.node:main"]},
)
