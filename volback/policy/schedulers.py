"""Schedulers: who else starts and stops a container. Pure: labels in, the owner and the command to type out.

A scheduler answers a stop by starting another container of the same work, on the same volumes. So volback does not
stop such a container, and starts none again: both are the scheduler's. It asks a swarm's manager to do both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """The scheduler's unit of work that a container belongs to."""

    what: str
    """It, in words: `swarm service 'web'`."""
    stop_command: str
    start_command: str
    where: str = ""
    """Where to type them: ` on a manager`."""
    service: str = ""
    """The id of the swarm service that it is."""


def owner_of(labels: Mapping[str, str]) -> Owner | None:
    """Return which scheduler starts and stops the container with these labels; None: none does."""
    for prefix, describe in _SCHEDULERS:
        if any(key.startswith(prefix) for key in labels):
            return describe(labels)
    return None


def stop_command(container: str, labels: Mapping[str, str]) -> str:
    """What stops a container, so that it stays stopped."""
    owner = owner_of(labels)
    return owner.stop_command if owner else f"docker stop {container}"


def start_command(container: str, labels: Mapping[str, str]) -> str:
    """What starts a container."""
    owner = owner_of(labels)
    return owner.start_command if owner else f"docker start {container}"


def _swarm(labels: Mapping[str, str]) -> Owner:
    name = labels.get("com.docker.swarm.service.name", "")
    shown = name or "SERVICE"
    return Owner(
        f"swarm service {name!r}" if name else "a swarm service",
        f"docker service scale {shown}=0",
        f"docker service scale {shown}=REPLICAS",
        where=" on a manager of the swarm",
        service=labels.get(SERVICE_LABEL, ""),
    )


def _kubernetes(labels: Mapping[str, str]) -> Owner:
    pod = labels.get("io.kubernetes.pod.name", "")
    namespace = labels.get("io.kubernetes.pod.namespace", "default")
    scale = f"kubectl --namespace {namespace} scale deployment/NAME"
    return Owner(
        f"Kubernetes pod {pod!r}" if pod else "a Kubernetes pod", f"{scale} --replicas=0", f"{scale} --replicas=COUNT"
    )


def _systemd(labels: Mapping[str, str]) -> Owner:
    unit = labels[_SYSTEMD_UNIT]
    return Owner(f"systemd unit {unit!r}", f"systemctl stop {unit}", f"systemctl start {unit}")


def _nomad(labels: Mapping[str, str]) -> Owner:
    job = labels.get("com.hashicorp.nomad.job_name", "")
    shown = job or "JOB"
    return Owner(f"Nomad job {job!r}" if job else "a Nomad job", f"nomad job stop {shown}", f"nomad job start {shown}")


def _ecs(labels: Mapping[str, str]) -> Owner:
    family = labels.get("com.amazonaws.ecs.task-definition-family", "")
    update = "aws ecs update-service --service NAME --desired-count"
    return Owner(f"ECS task {family!r}" if family else "an ECS task", f"{update} 0", f"{update} COUNT")


SERVICE_LABEL = "com.docker.swarm.service.id"
NODE_LABEL = "com.docker.swarm.node.id"
_SYSTEMD_UNIT = "PODMAN_SYSTEMD_UNIT"
"""Set by quadlet and by `podman generate systemd`: podman-auto-update(1)."""
_SCHEDULERS: tuple[tuple[str, Callable[[Mapping[str, str]], Owner]], ...] = (
    ("com.docker.swarm.", _swarm),
    ("io.kubernetes.", _kubernetes),
    (_SYSTEMD_UNIT, _systemd),
    ("com.hashicorp.nomad.", _nomad),
    ("com.amazonaws.ecs.", _ecs),
)
