"""The tokens in the addresses of apps, and what is left of them in an image.

tokens.py of APPS_JSON ADDRESS...: print the tokens, one a line, as they stand and decoded.
tokens.py in FILE FOLDER...: end with 1 if a token of FILE is in a name, a link or a file under a folder, or if
something there cannot be looked at: who has not looked everywhere has not found nothing.

Runs on the Python of the base image, with nothing but its standard library.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import urllib.parse
from pathlib import Path

SHORTEST = 8
"""Characters: what is shorter would be found everywhere, and is no token."""
NO_PASSWORDS = ("", "x-oauth-basic")
"""What GitHub wants beside a token that stands where the user's name does."""


def token_of(address: str) -> str:
    """Return the secret part of an address: the password, else the name, which over ssh is only a name.

    Services that take a token as the name accept any word as the password; one that is too short is none.
    """
    parts = urllib.parse.urlsplit(address)
    userinfo, at, _ = parts.netloc.rpartition("@")
    name, _, password = userinfo.partition(":")
    if password not in NO_PASSWORDS and len(password) >= SHORTEST:
        return password
    return name if at and parts.scheme in {"http", "https"} else ""


def tokens_of(apps_json: Path, addresses: list[str]) -> list[str]:
    """Return the tokens; a list that cannot be read is an error."""
    try:
        rows = json.loads(apps_json.read_text(encoding="utf-8"))
        tokens = [token_of(address) for address in [*(row["url"] for row in rows), *addresses]]
    except (ValueError, KeyError, TypeError, AttributeError):
        sys.exit('apps.json: a list of {"url": ..., "branch": ...} is expected')
    both = {form for token in tokens for form in (token, urllib.parse.unquote(token))}
    return sorted(token for token in both if len(token) >= SHORTEST)


def content_of(path: Path) -> bytes:
    """Return the bytes of a file, or of where a link leads to; of nothing else."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return os.fsencode(path.readlink())
    return path.read_bytes() if stat.S_ISREG(mode) else b""


def look(folder: Path, tokens: list[bytes]) -> tuple[list[str], list[str]]:
    """Return the paths in which there is a token, and what could not be looked at."""
    found: list[str] = []
    missed: list[str] = []
    for place, folders, files in os.walk(folder, onerror=lambda error: missed.append(str(error))):
        for path in (Path(place, name) for name in folders + files):
            try:
                seen = os.fsencode(path.name) + b"\n" + content_of(path)
            except OSError as error:
                missed.append(str(error))
                continue
            if any(token in seen for token in tokens):
                found.append(str(path))
    return found, missed


def apart(folders: list[str]) -> list[Path]:
    """Return the folders that are not in another one."""
    real = {Path(folder).resolve() for folder in folders}
    return sorted(one for one in real if not real & set(one.parents))


def judge(tokens: list[bytes], folders: list[str]) -> bool:
    """Say what is wrong with folders, without a token in the words; return whether nothing is."""
    well = True
    for folder in apart(folders):
        found, missed = look(folder, tokens)
        said = [f"a token of apps.json is still in: {path}" for path in found]
        said += [f"whether a token is there is not known: {error}" for error in missed]
        for line in said:
            well, masked = False, line
            for token in tokens:
                masked = masked.replace(os.fsdecode(token), "***")
            print(masked, file=sys.stderr)
    return well


def main(question: str, first: str, *rest: str) -> None:
    """Answer one of the two questions."""
    if question == "of":
        for token in tokens_of(Path(first), list(rest)):
            print(token)
    elif tokens := Path(first).read_bytes().splitlines():
        sys.exit(not judge(tokens, list(rest)))


if __name__ == "__main__":
    main(*sys.argv[1:])
