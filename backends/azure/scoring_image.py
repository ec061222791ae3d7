"""The image of a service on Azure ML: what its score script needs, and Azure's inference server, everything pinned.

The server can't be installed beside this package: it wants versions of pydantic and OpenTelemetry that exclude those
that are pinned here. So its pins are a table, found by ``uv pip compile``; where a score script needs one of the
packages too, the version that is installed here is taken if the server allows it, else the table's.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata

from backends.azure.image import (
    PARSING,
    Environment,
    Pins,
    imported_distributions,
    imported_modules,
    make_environment,
    pinned_closure,
)
from trainer.deploy.service import Deployment
from trainer.errors import ConfigError, RefusedError
from trainer.provision import BY_HAND
from trainer.runtime.layout import JOB_DIR
from trainer.runtime.versions import installed_version
from trainer.snapshot import Snapshot

# What our own score script imports; Chainer is in every image, for what is made of it.
_OURS = ("msgspec", "numpy", "pillow")
_ALWAYS = ("chainer", "numpy")
# Chainer does less, in silence, where it is missing.
_WHERE_INSTALLED = ("pillow",)

PORT = 5001
# The variables are Azure's: where it puts the code, and the entry script in that.
_START = f"""
EXPOSE {PORT}
CMD cd "$AML_APP_ROOT" && exec azmlinfsrv --entry_script "$AML_APP_ROOT/$AZUREML_ENTRY_SCRIPT" --port {PORT}
"""

# azureml-inference-server-http 1.5.1 and all that it requires: version, and what they require of each other.
SERVER: Mapping[str, tuple[str, str]] = {
    "annotated-types": ("0.8.0", ">=0.6.0"),
    "azure-core": ("1.41.0", "<2.0.0,>=1.24.0,>=1.28.0,>=1.31.0"),
    "azure-identity": ("1.27.0", "~=1.17"),
    "azure-monitor-opentelemetry-exporter": ("1.0.0b40", ""),
    "azureml-inference-server-http": ("1.5.1", ""),
    "blinker": ("1.9.0", ">=1.9.0"),
    "certifi": ("2026.10.19.post1", ">=2017.4.17,>=2023.5.7,>=2024.7.4"),
    "cffi": ("2.1.1", ">=2.0.0"),
    "charset-normalizer": ("3.5.3", "<4,>=2"),
    "click": ("8.5.1", ">=8.1.3"),
    "cryptography": ("50.0.2", "<51,>=2.5"),
    "deprecated": ("1.3.1", ">=1.2.6"),
    "fixedint": ("0.1.6", "==0.1.6"),
    "flask": ("3.1.3", ">=0.9,~=3.1.0"),
    "flask-cors": ("6.0.5", "~=6.0.0"),
    "gunicorn": ("27.0.1", ">=23.0.0"),
    "idna": ("3.20", "<4,>=2.5"),
    "importlib-metadata": ("8.6.1", "<8.7.0,>=6.0"),
    "inference-schema": ("1.8", "~=1.8.0"),
    "isodate": ("0.7.2", ">=0.6.0"),
    "itsdangerous": ("2.2.0", ">=2.2.0"),
    "jinja2": ("3.1.6", ">=3.1.2"),
    "markupsafe": ("3.0.4", ">=2.0,>=2.1.1"),
    "msal": ("1.39.0", "<2,>=1.29,>=1.39.0"),
    "msal-extensions": ("1.3.1", ">=1.2.0"),
    "msrest": ("0.7.1", ">=0.6.10"),
    "oauthlib": ("4.0.1", ">=3.0.0"),
    "opentelemetry-api": ("1.33.0", "==1.33.0,~=1.26"),
    "opentelemetry-sdk": ("1.33.0", "==1.33.0,~=1.26"),
    "opentelemetry-semantic-conventions": ("0.54b0", "==0.54b0"),
    "psutil": ("7.2.2", "<8,>=5.9"),
    "pycparser": ("3.12", ""),
    "pydantic": ("2.12.5", ">=2.7.0,~=2.12.0"),
    "pydantic-core": ("2.41.5", "==2.41.5"),
    "pydantic-settings": ("2.16.3", ""),
    "pyjwt": ("2.15.1", "<3,>=1.0.0"),
    "python-dateutil": ("4.0.0", ">=2.5.3"),
    "python-dotenv": ("1.2.4", ">=1.2.2"),
    "pytz": ("2026.6", ">=2017.2"),
    "requests": ("2.34.2", "<3,>=2.0.0,>=2.21.0,~=2.16"),
    "requests-oauthlib": ("2.0.0", ">=0.5.0"),
    "typing-extensions": ("4.16.0", ">=3.7.4,>=4.0.0,>=4.14.1,>=4.15.0,>=4.6.0"),
    "typing-inspection": ("0.4.5", ">=0.4.0,>=0.4.2"),
    "tzdata": ("2026.6", ""),
    "urllib3": ("2.8.0", "<3,>=1.26"),
    "werkzeug": ("3.1.9", ">=0.7,>=3.0.3,>=3.1.0"),
    "wrapt": ("1.16.0", "<3,<=1.16.0,>=1.10,>=1.14.0"),
    "zipp": ("4.1.2", ">=3.20"),
}


def scoring_environment(deployment: Deployment, snapshot: Snapshot, *, starts_server: bool = False) -> Environment:
    """Make the image for a deployment.

    Args:
        deployment: What is deployed.
        snapshot: What travels.
        starts_server: Whether the image itself says how Azure's inference server is started.

    Raises:
        RefusedError: What the score script imports, or the network's file, can't be installed beside Azure's
            inference server.
        ConfigError: Something that it needs is not installed here.
    """
    roots = {*_ALWAYS, *(name for name in _WHERE_INSTALLED if installed_version(name) is not None)}
    with PARSING:
        if deployment.script is None:
            roots |= set(_OURS)
        if deployment.script is not None or deployment.network.where is not None:
            files = [file for file in snapshot.files if file.path.endswith(".py")]
            theirs = [file for file in files if not file.path.startswith(f"{JOB_DIR}/")]
            beside = {part.removesuffix(".py") for file in theirs for part in file.path.split("/")}
            sources = [file.source for file in theirs]
            roots |= imported_distributions(sources, beside)
            if "azureml" in imported_modules(sources) and installed_version("azureml-core") is not None:
                roots.add("azureml-core")
        return make_environment(_pins(roots), None, "score", _START if starts_server else "")


def _pins(roots: Iterable[str]) -> Pins:
    for name in _ALWAYS:
        if installed_version(name) is None:
            raise ConfigError(
                f"{name} is not installed here.", BY_HAND if name == "chainer" else "Install trainer again."
            )
    own, left_out = pinned_closure(roots)
    packages, replaced = _beside_server(own)
    _check(own, packages)
    ordered = {name: packages[name] for name in sorted(packages)}
    return Pins(python=platform.python_version(), packages=ordered, left_out=left_out, replaced=replaced)


def _beside_server(own: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Add the server's packages; returns all versions, and what was replaced by the server's."""
    from packaging.specifiers import SpecifierSet

    packages, replaced = dict(own), []
    for name, (version, bounds) in SERVER.items():
        if name in own and SpecifierSet(bounds).contains(own[name], prereleases=True):
            continue
        packages[name] = version
        if name in own and own[name] != version:
            replaced.append(f"{name} {version} in place of {own[name]}")
    return packages, tuple(replaced)


def _check(own: Mapping[str, str], packages: Mapping[str, str]) -> None:
    """Refuse versions that don't go together, as ``pip check`` would when the image has been built.

    Raises:
        RefusedError: A package that is installed here doesn't take a version of the server's.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for name, version in own.items():
        if packages[name] != version:
            continue  # the server's own, which go together
        for text in metadata.distribution(name).requires or ():
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            needed = packages.get(canonicalize_name(requirement.name))
            if needed is not None and not requirement.specifier.contains(needed, prereleases=True):
                raise RefusedError(
                    f"{name} {version} requires {requirement.name}{requirement.specifier}, and Azure's inference "
                    f"server takes {needed}.",
                    f"Have the score script do without {name}, or install a version of it that takes {needed}.",
                )
