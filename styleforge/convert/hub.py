"""Checkpoints on the Hugging Face Hub: ``model.safetensors`` and a model card in a repository."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from styleforge.checkpoint import Checkpoint
from styleforge.convert.card import make_card, to_markdown
from styleforge.convert.reading import load_any
from styleforge.convert.writing import write

FILE = "model.safetensors"
"""Name of the checkpoint in a repository."""


def push(loaded: Checkpoint, repo_id: str, *, private: bool = False, api: Any = None) -> str:
    """Uploads a checkpoint and its card; the repository is made if it is missing.

    Args:
        loaded: What to upload; the training state stays behind.
        repo_id: ``owner/name``.
        private: Whether a new repository is private.
        api: A ``huggingface_hub.HfApi``; None makes one, with the token that its own login has stored.

    Returns:
        The address of the repository.

    Raises:
        ValueError: The extra is not installed, or ``repo_id`` is none.
        OSError: The upload failed.
    """
    _require_id(repo_id)
    api = api or _api()
    with tempfile.TemporaryDirectory() as folder:
        bare = Checkpoint(
            G_ema=loaded.G_ema, G=loaded.G, D=loaded.D, config=loaded.config, info=loaded.info, source=loaded.source
        )
        write(bare, Path(folder) / FILE)
        card = to_markdown(make_card(bare), repo_id)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        url = str(api.create_repo(repo_id, private=private, exist_ok=True))  # once there is what goes into it
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload with styleforge")
    return url


def load(repo_id: str, *, filename: str = FILE, revision: str | None = None, api: Any = None) -> Checkpoint:
    """Downloads a checkpoint of any kind, and reads it without executing anything.

    Args:
        repo_id: ``owner/name``.
        filename: The file in the repository.
        revision: Branch, tag or commit; None for the main branch.
        api: As `push` takes it.

    Raises:
        ValueError: The extra is not installed, ``repo_id`` is none, or the file is damaged or of another kind.
        OSError: It cannot be fetched.
    """
    _require_id(repo_id)
    return load_any((api or _api()).hf_hub_download(repo_id, filename, revision=revision))


def _require_id(repo_id: str) -> None:
    owner, _, name = repo_id.partition("/")
    if not owner or not name or "/" in name:
        raise ValueError(f"repo_id: got {repo_id!r}, expected owner/name, such as someone/portraits")


def _api() -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ValueError(
            "hub: got no package 'huggingface_hub', expected it to be installed: pip install \"styleforge[hub]\""
        ) from error
    return HfApi()
