"""Schedulers: whose container it is, by its labels, and the command to type."""

from __future__ import annotations

import pytest

from volback.policy.schedulers import owner_of, start_command, stop_command

POD = {"io.kubernetes.pod.name": "db-0", "io.kubernetes.pod.namespace": "shop"}
COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.service": "db"}


@pytest.mark.parametrize(
    ("labels", "what", "stop", "start"),
    [
        (
            {"com.docker.swarm.service.name": "web", "com.docker.swarm.task.name": "web.1.x"},
            "swarm service 'web'", "docker service scale web=0", "docker service scale web=REPLICAS",
        ),
        ({"com.docker.swarm.task": ""}, "a swarm service", "docker service scale SERVICE=0", "SERVICE=REPLICAS"),
        (POD, "Kubernetes pod 'db-0'", "kubectl --namespace shop scale", "--replicas=COUNT"),
        (
            {"PODMAN_SYSTEMD_UNIT": "db.service"},
            "systemd unit 'db.service'", "systemctl stop db.service", "systemctl start db.service",
        ),
        (
            {"com.hashicorp.nomad.alloc_id": "1", "com.hashicorp.nomad.job_name": "db"},
            "Nomad job 'db'", "nomad job stop db", "nomad job start db",
        ),
        (
            {"com.amazonaws.ecs.task-definition-family": "db"},
            "ECS task 'db'", "--desired-count 0", "--desired-count COUNT",
        ),
    ],
)  # fmt: skip
def test_a_schedulers_labels_name_its_work_and_its_commands(
    labels: dict[str, str], what: str, stop: str, start: str
) -> None:
    owner = owner_of(labels)
    assert owner is not None
    assert owner.what == what
    assert stop in owner.stop_command
    assert start in owner.start_command


def test_the_command_for_a_container_is_its_schedulers_or_dockers() -> None:
    labels = {"PODMAN_SYSTEMD_UNIT": "db.service"}
    assert (stop_command("db", labels), stop_command("db", COMPOSE)) == ("systemctl stop db.service", "docker stop db")
    assert (start_command("db", labels), start_command("db", {})) == ("systemctl start db.service", "docker start db")


@pytest.mark.parametrize("labels", [{}, COMPOSE, {"io.k8s.display-name": "an image"}])
def test_what_nobody_restarts_has_no_owner(labels: dict[str, str]) -> None:
    assert owner_of(labels) is None
