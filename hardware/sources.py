"""Where a robot's MuJoCo model comes from. We ship none: packages and their authors do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from onestride.hardware.model import Model


class Source(Model):
    """What is the same wherever a model comes from.

    Attributes:
        prefix: put before every name of the model.
        sites: frames that the model lacks: name of the site -> body at whose origin it is put.
    """

    prefix: str = ""
    sites: dict[str, str] = Field(default_factory=dict)


class Tool(Model):
    """A second model of the same package, mounted on the first.

    Attributes:
        file: path inside the package.
        site: of the robot, where it is mounted.
        prefix: put before every name of the tool, after that of the robot.
    """

    file: str
    site: str
    prefix: str


class PackagedModel(Source):
    """A file of an installed Python package, which is found without being imported.

    Attributes:
        package: its import name.
        file: path inside the package.
        tool: what is mounted on the robot.
    """

    package: Literal["robosuite", "robosuite_models", "ogbench"]
    file: str
    tool: Tool | None = None


class MenagerieModel(Source):
    """A file of a checkout of MuJoCo Menagerie, whose path the variable MENAGERIE_ROOT names.

    Attributes:
        menagerie: path inside the checkout, such as `unitree_go1/go1.xml`.
    """

    menagerie: str


class GivenModel(Source):
    """A file that the user names, because no package has it.

    Attributes:
        path: nothing.
    """

    path: None = None


ModelSource = PackagedModel | MenagerieModel | GivenModel
