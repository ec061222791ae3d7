"""What the distribution's metadata holds that depends on where the repository is: URLs, and the README's links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)]+)\)")


class RepositoryHook(MetadataHookInterface):
    """Fill in ``readme`` and ``urls`` from the address in pyproject.toml; without one there are no URLs."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Change the metadata in place."""
        address = str(self.config.get("repository", "")).rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["urls"] = {}
        if address:
            text = _RELATIVE.sub(lambda link: _absolute(link, address), text)
            metadata["urls"] = {
                "Source": address,
                "Documentation": f"{address}/blob/main/docs/index.md",
                "Changelog": f"{address}/blob/main/CHANGELOG.md",
                "Issues": f"{address}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def _absolute(link: re.Match[str], address: str) -> str:
    picture, words, target = link.groups()
    return f"{picture}[{words}]({address}/{'raw' if picture else 'blob'}/main/{target})"
