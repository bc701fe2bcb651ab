"""Artifacts by digest: ``DATA/artifacts/<sha256 hex>``, written once, checked at every reading."""

from __future__ import annotations

import hashlib
from pathlib import Path

from explainers.errors import ArtifactError
from storage.durable import make_directory, replace_file

ARTIFACT_BYTES_MAX = 256 * 1024 * 1024  # a forest of thousands of deep trees; bounds a worker's memory
BASELINE_BYTES_MAX = 32 * 1024 * 1024  # 5,000 rows of 5,000 columns would be slower to explain with than to read
REGISTRATION_BYTES_MAX = 4 * 1024 * 1024  # 5,000 features with their texts


class Artifacts:
    """The artifacts of one data directory."""

    def __init__(self, data: Path) -> None:
        self._directory = data / "artifacts"

    def path(self, digest: str) -> Path:
        """Where the artifact with `digest` (lowercase hex) is kept, whether or not it is there."""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ArtifactError(f"{digest[:80]!r} is no SHA-256 digest in lowercase hex", code="digest_invalid")
        return self._directory / digest

    def read(self, digest: str, *, bytes_max: int) -> bytes:
        """The bytes whose SHA-256 is `digest`.

        Raises:
            ArtifactError: they are not there, larger than `bytes_max`, or were altered.
        """
        content = read_bounded(self.path(digest), bytes_max=bytes_max)
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise ArtifactError(f"artifact {digest} was altered: its digest is now {found}", code="digest_differs")
        return content

    def add(self, content: bytes) -> str:
        """Keep `content` durably and return its digest; what is there already and sound is left alone."""
        digest = hashlib.sha256(content).hexdigest()
        path = self.path(digest)
        if not (path.is_file() and path.read_bytes() == content):
            make_directory(self._directory)
            replace_file(path, content)
        return digest


def read_bounded(path: Path, *, bytes_max: int) -> bytes:
    """The whole file at `path`.

    Raises:
        ArtifactError: it cannot be read or is larger than `bytes_max`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}", code="artifact_missing") from error
    if len(content) > bytes_max:
        raise ArtifactError(f"{path}: larger than {bytes_max} bytes", code="artifact_too_large")
    return content
