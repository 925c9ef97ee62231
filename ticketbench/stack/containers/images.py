"""The images of the stack: there already, pulled or built, with what tells them apart for the run's record."""

import hashlib
import io
import re
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import requests

from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Emit, Provide
from ticketbench.machine import PACKAGES
from ticketbench.model import BinaryVersion
from ticketbench.stack.compose import Build, Compose, Service
from ticketbench.stack.containers.engine import APIError, DockerException, Engine, ImageNotFound, advice, spoken

# On an image of ours: the hash of what it was built from.
SOURCE: Final = "ticketbench.source"
# On an image that stands in for an official one where no registry can be reached (tests/standin).
STANDIN: Final = "ticketbench.standin"
BUILD_TIMEOUT_S: Final = 900
# What the builder says of its own doing, among what the commands say that it carries out.
_OF_THE_BUILDER: Final = ("--->", "Removing intermediate container")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_TOLD_BYTES: Final = 1_000_000  # a pull tells of every few kilobytes


@dataclass(frozen=True)
class Image:
    """An image that the engine has: ``id`` is the hash of its content, ``digest`` the registry's, empty without one."""

    service: str
    name: str
    id: str
    digest: str
    stand_in: bool

    def version(self) -> BinaryVersion:
        """Return what the run's record says of it."""
        source = "stand-in image" if self.stand_in else "image"
        return BinaryVersion(
            part=self.service, version=self.name, source=source, sha256=(self.digest or self.id).removeprefix("sha256:")
        )


class Images:
    """Provides images. Raises EnvironmentFailure naming the image, why it cannot be had, and what to do."""

    def __init__(self, engine: Engine, emit: Emit) -> None:
        self._engine = engine
        self._emit = emit

    def provide(
        self, compose: Compose, services: Iterable[str], known: Mapping[str, Image] | None = None
    ) -> dict[str, Image]:
        """Return the image of each service; what is not there is pulled or built, which takes minutes at worst.

        Services of one image get the very same, also where one of ``known`` is it: its name may be another's by now.
        """
        found: dict[str, Image] = {}
        for name in services:
            service = compose.services[name]
            there = (*(known or {}).values(), *found.values())
            same = next((image for image in there if image.name == service.image), None)
            attributes = None if same else self._have(service)
            found[name] = (
                Image(name, same.name, same.id, same.digest, same.stand_in)
                if same
                else _image(name, service.image, attributes or {})
            )
        return found

    def _have(self, service: Service) -> dict[str, Any]:
        if service.build is not None:
            return self._built(service, service.build)
        attributes = self._look(service.image)
        if attributes is None:
            self._pull(service)
            attributes = self._look(service.image)
        if attributes is None:
            raise _cannot(service, "the engine pulled it and does not have it")
        return attributes

    def _look(self, name: str) -> dict[str, Any] | None:
        with spoken(f"look for the image {name}"):
            try:
                told: dict[str, Any] = self._engine.client.api.inspect_image(name)
            except ImageNotFound:
                return None
        return told

    # --- pulled -------------------------------------------------------------------------------------------------------

    def _pull(self, service: Service) -> None:
        part = service.name
        self._emit(Provide(part, f"pulling {service.image}"))
        layers: dict[str, tuple[int, int]] = {}
        told_bytes = 0
        try:
            for line in self._engine.client.api.pull(service.image, stream=True, decode=True):
                if "error" in line:
                    raise _cannot(service, str(line["error"]))
                detail = line.get("progressDetail") or {}
                if line.get("status") == "Downloading" and detail.get("total"):
                    layers[str(line["id"])] = (int(detail["current"]), int(detail["total"]))
                    done, total = (sum(column) for column in zip(*layers.values(), strict=True))
                    if done - told_bytes >= _TOLD_BYTES:
                        told_bytes = done
                        self._emit(Provide(part, f"pulling {service.image}", done, total))
        except (DockerException, requests.RequestException) as error:
            explanation = error.explanation if isinstance(error, APIError) else None
            raise _cannot(service, str(explanation or error)) from error

    # --- built --------------------------------------------------------------------------------------------------------

    def _built(self, service: Service, build: Build) -> dict[str, Any]:
        """Return an image of ours that is built from what is here now; it is built where none is."""
        source = source_hash(build)
        attributes = self._look(service.image)
        if attributes is not None and _labels(attributes).get(SOURCE) == source:
            return attributes
        self._emit(Provide(service.name, f"building {service.image}"))
        client = self._engine.client.api
        last: deque[str] = deque(maxlen=3)
        try:
            for line in client.build(
                fileobj=io.BytesIO(context_of(build)),
                custom_context=True,
                dockerfile=build.dockerfile,
                tag=service.image,
                buildargs={name: value for name, value in build.args.items() if value},
                labels={SOURCE: source},
                rm=True,
                forcerm=True,  # else the containers of a build that fails stay
                decode=True,
                timeout=BUILD_TIMEOUT_S,
            ):
                if "error" in line:
                    raise _cannot_build(service, " / ".join([*last, str(line["error"])]))
                said = _COLOUR.sub("", str(line.get("stream", ""))).strip()
                if said and not said.startswith(_OF_THE_BUILDER):
                    last.append(said)
                if said.startswith("Step "):
                    self._emit(Provide(service.name, f"building {service.image}: {said[:100]}"))
        except (DockerException, requests.RequestException) as error:
            explanation = error.explanation if isinstance(error, APIError) else None
            raise _cannot_build(service, str(explanation or error)) from error
        attributes = self._look(service.image)
        if attributes is None:
            raise _cannot_build(service, "the engine built it and does not have it")
        return attributes


def _image(service: str, name: str, attributes: Mapping[str, Any]) -> Image:
    digests = attributes.get("RepoDigests") or [""]
    return Image(
        service=service,
        name=name,
        id=str(attributes["Id"]),
        digest=str(digests[0]).rpartition("@")[2],
        stand_in=STANDIN in _labels(attributes),
    )


def _labels(attributes: Mapping[str, Any]) -> dict[str, str]:
    return (attributes.get("Config") or {}).get("Labels") or {}


def _cannot(service: Service, why: str) -> EnvironmentFailure:
    said = " ".join(why.split())[:400]
    return EnvironmentFailure(
        f"the image {service.image} ({service.name}) is not here and cannot be pulled: {said}",
        advice(said)
        or f"pull it where its registry can be reached, name another with TICKETBENCH_IMAGE_{service.name.upper()}, "
        "or use --stack local",
    )


def _cannot_build(service: Service, why: str) -> EnvironmentFailure:
    said = " ".join(why.split())[-600:]
    return EnvironmentFailure(
        f"the image {service.image} ({service.name}) cannot be built: {said}",
        advice(said) or "what it is made from must be had: docs/docker.md names it; or use --stack local",
    )


# --- what an image is built from --------------------------------------------------------------------------------------


def source_hash(build: Build) -> str:
    """Return a hash over all that an image is built from."""
    digest = hashlib.sha256()
    for name, content in _files(build):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    for name, value in sorted(build.args.items()):
        if not name.startswith("PIP_"):  # where packages come from; which they are is in the hashed requirements
            digest.update(f"{name}={value}\0".encode())
    return digest.hexdigest()


def packages(compose: Compose, service: str = "app") -> dict[str, str]:
    """Return the versions of what a service's image of ours has installed: its locked requirements."""
    build = compose.services[service].build
    if build is None:
        return {}
    path = build.context / Path(build.dockerfile).with_name("requirements.txt")
    try:
        pinned = (line.partition("==") for line in path.read_text().splitlines() if "==" in line)
    except OSError as error:
        raise _unreadable(error) from error
    found = {name.partition("[")[0].strip(): version.split()[0] for name, _, version in pinned}
    return {name: found[name] for name in PACKAGES if name in found}


def context_of(build: Build) -> bytes:
    """Return the tar that the engine builds from: nothing of this machine but the files themselves."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in _files(build):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _files(build: Build) -> Iterator[tuple[str, bytes]]:
    """Yield what .dockerignore lets through, which names what is wanted (``!name``), and the Dockerfile; by name."""
    folder = build.context
    try:
        lines = (folder / ".dockerignore").read_text().splitlines()
        wanted = {line[1:].strip("/") for line in lines if line.startswith("!")}
        refused = [line.strip() for line in lines if line.strip().startswith("**/")]
        paths: set[Path] = {folder / build.dockerfile}
        for name in wanted:
            path = folder / name
            paths |= {path} if path.is_file() else {inner for inner in path.rglob("*") if inner.is_file()}
        for path in sorted(paths):
            inside = path.relative_to(folder)
            if not any(fnmatch(part, pattern.removeprefix("**/")) for part in inside.parts for pattern in refused):
                yield inside.as_posix(), path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"what the app image is built from cannot be read: {error.filename}: {error.strerror}",
        "install ticketbench again",
    )
