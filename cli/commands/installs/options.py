"""What an install is made of: of which product or package, where, and with which values."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.completion import names_of
from cli.session import CLUSTER, PACKAGE, PRODUCT, REGION

ProductArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PRODUCT",
        help="Name of one of yours, or anybody's id.",
        autocompletion=names_of(PRODUCT),
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(metavar="CLUSTER", help="Where: id or name.", autocompletion=names_of(CLUSTER)),
]
RegionOption = Annotated[
    str | None,
    typer.Option(
        metavar="REGION",
        help="Without --cluster: any cluster of this region.",
        autocompletion=names_of(REGION),
    ),
]
PackageOption = Annotated[
    str | None,
    typer.Option(
        metavar="PACKAGE",
        help="A package of yours, instead of a product.",
        autocompletion=names_of(PACKAGE),
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="VERSION",
        help="Of the package: a semantic version, or its id; by default the newest.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="One value, such as web.replicas=3; may be repeated."
    ),
]
ValuesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--values", "-f", metavar="FILE", help="YAML or JSON; of several the later ones win."
    ),
]
SecretOption = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="PATH=SECRET[:ALIAS[:KEY]]",
        help="What the value is, by the name or id of a secret of the workspace: the chart gets "
        "the name of a Kubernetes Secret, and no value. May be repeated.",
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="`name` is what to call it here; may be repeated."),
]
ChannelOption = Annotated[
    Literal["stable", "edge"] | None,
    typer.Option(help="Which versions may come by themselves."),
]
ConsentOption = Annotated[
    Literal["automatic", "ask"] | None,
    typer.Option(
        "--grant",
        help="Let the product's vendor move it by rollouts: each time, or when you agreed.",
    ),
]
