"""What examples/frappe ships besides code: the Dockerfile, compose files and the chart, judged by their own tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from frappe_bootstrap import settings
from tests.image.engine import ROOT

EXAMPLE = ROOT / "examples" / "frappe"
CHART = EXAMPLE / "chart"
KUBERNETES = ("1.27.0", kubernetes_validate.latest_version())
VALUES: list[dict[str, Any]] = [
    {},
    {
        "ingress": {"enabled": True, "className": "nginx", "tls": [{"secretName": "t", "hosts": ["erp.example.com"]}]},
        "web": {"strategy": "Recreate"},
        "migration": {"stopPolicy": "finish"},
        "secrets": {"coordinateUrl": True},
        "storage": {"existingClaim": "mine"},
        "extraEnv": {"MAINTENANCE_WAIT_SECS": 10},
    },
]
HOSTS = {"DB_HOST", "REDIS_HOST", "BACKEND", "SOCKETIO", "REPLICAS"}
"""Variables that hold the name of a service."""
GRACEFUL = 30
"""Seconds that gunicorn and nginx have for what they have begun."""
PLANTED = {
    "Dockerfile": ("RUN apt-get update", "RUN cd / && sudo apt-get update"),
    "compose": ("environment:", "enviroment:"),
}


def _run(program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


FLEETS = [
    ("compose.yaml",),
    ("compose.yaml", "compose.leases.yaml"),
    ("compose.yaml", "compose.sentinel.yaml", "compose.leases.yaml"),
    ("compose.processes.yaml",),
    ("compose.processes.yaml", "compose.processes.leases.yaml"),
    ("compose.processes.yaml", "compose.sentinel.yaml", "compose.processes.leases.yaml"),
]
"""The files that are meant to be used together."""


def _compose(path: Path) -> subprocess.CompletedProcess[str]:
    return _run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def _rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects of the chart, as helm renders them."""
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(values, name="shop", namespace="erp")
    return [part for text in texts.values() for part in yaml.safe_load_all(text) if part]


def test_the_dockerfile_has_nothing_that_hadolint_objects_to(tmp_path: Path) -> None:
    """And what it objects to, it finds."""
    done = _run("hadolint", EXAMPLE / "Dockerfile")
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "Dockerfile"
    bad.write_text((EXAMPLE / "Dockerfile").read_text().replace(*PLANTED["Dockerfile"]))
    assert "DL3004" in _run("hadolint", bad).stdout


def _merged(names: tuple[str, ...]) -> dict[str, Any]:
    """Return what compose makes of several files."""
    whole: dict[str, Any] = {}
    for name in names:
        whole = _over(whole, yaml.safe_load((EXAMPLE / name).read_text()))
    return whole


def _over(below: Any, above: Any) -> Any:  # noqa: ANN401 -- any part of a file
    """Lay one file's part over another's: mappings grow, lists grow but for commands, all else is replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        replaced = {"command", "entrypoint"}
        both = {key: _over(below[key], above[key]) for key in below.keys() & above.keys() - replaced}
        return below | above | both
    if isinstance(below, list) and isinstance(above, list):
        return [*below, *(one for one in above if one not in below)]
    return above


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLE.glob("compose*.yaml")))
def test_compose_files_are_what_the_specification_says(tmp_path: Path, name: str) -> None:
    """A misspelt key is found."""
    done = _compose(EXAMPLE / name)
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "compose.yaml"
    bad.write_text((EXAMPLE / name).read_text().replace(*PLANTED["compose"]))
    assert _compose(bad).returncode == 1


def test_every_compose_file_is_meant_to_be_used_with_some_other() -> None:
    """Or else it would not be judged below; what the pages say is one of these."""
    assert {name for names in FLEETS for name in names} == {path.name for path in EXAMPLE.glob("compose*.yaml")}
    page = (ROOT / "docs" / "operate-frappe.md").read_text()
    for said in re.findall(r"^COMPOSE_FILE=(\S+)$", page, re.MULTILINE):
        assert tuple(said.split(":")) in FLEETS


@pytest.mark.parametrize("names", FLEETS, ids="+".join)
def test_files_that_are_used_together_are_whole(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Each service can be made; what it names, another service, a secret or a volume, is there."""
    whole = _merged(names)
    path = tmp_path / "compose.yaml"
    path.write_text(yaml.safe_dump(whole))
    assert _compose(path).returncode == 0
    services = whole["services"]
    for name, service in services.items():
        assert "image" in service, name
        assert set(service.get("secrets", ())) <= set(whole["secrets"]), name
        assert set(service.get("depends_on", ())) <= set(services), name
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert {volume for volume in volumes if not volume.startswith(".")} <= set(whole["volumes"]), name
        assert _hosts(service) <= set(services), name
    used = {secret for service in services.values() for secret in service.get("secrets", ())}
    assert set(whole["secrets"]) - used == {"apps_json"}, "of the build"


def _hosts(service: dict[str, Any]) -> set[str]:
    """Return the names of other services in a service's environment and commands."""
    environ = service.get("environment", {})
    named = {value.partition(":")[0] for key, value in environ.items() if key in {*HOSTS, "ANNOUNCED"} and value}
    words = " ".join(map(str, [*service.get("entrypoint", ()), *service.get("command", ())]))
    return named | set(re.findall(r"(?:monitor leases|replicaof) (\S+)", words))


@pytest.mark.parametrize("names", [names for names in FLEETS if "leases.yaml" in names[-1]], ids="+".join)
def test_all_processes_of_a_bench_use_the_leases_of_an_overlay(names: tuple[str, ...]) -> None:
    """One that did not would follow a leader that it does not see."""
    services = _merged(names)["services"]
    ours = {name: one for name, one in services.items() if "frappe-sites" in str(one.get("volumes"))}
    assert len(ours) == (1 if "compose.yaml" in names else 6)
    for name, service in ours.items():
        assert service["environment"]["COORDINATE_URL_FILE"] == "/run/secrets/coordinate_url", name
        assert "coordinate_url" in service["secrets"], name
        assert set(_merged(names[:1])["services"][name]["secrets"]) < set(service["secrets"])


def test_servers_of_leases_keep_what_they_hold_on_volumes_of_their_own_and_know_themselves_by_name() -> None:
    """A container that is made anew has another address and an empty layer."""
    services = yaml.safe_load((EXAMPLE / "compose.sentinel.yaml").read_text())["services"]
    assert len(services) == 6
    for name, service in services.items():
        assert service["volumes"] == [f"{name}-data:/data"]
        assert service["environment"] == {"ANNOUNCED": name}


def test_the_hook_that_the_compose_files_and_the_chart_name_is_in_the_image() -> None:
    """A start with another name would end with 78."""
    named = set()
    for name in ("compose.yaml", "compose.processes.yaml"):
        named |= set(re.findall(r"PRE_MIGRATE_HOOK: \$\{PRE_MIGRATE_HOOK-(\S+)\}", (EXAMPLE / name).read_text()))
    (web,) = [one for one in _pods({})["web"]["containers"] if one["name"] == "web"]
    named |= {row["value"] for row in web["env"] if row["name"] == "PRE_MIGRATE_HOOK"}
    assert named == {"keep-backup"}
    assert os.access(EXAMPLE / "bin" / "keep-backup", os.X_OK)


def test_every_variable_of_the_compose_files_has_a_line_in_the_example_or_a_default() -> None:
    """And what the example sets is used."""
    texts = [path.read_text() for path in EXAMPLE.glob("compose*.yaml")]
    used = {match for text in texts for match in re.findall(r"(?<!\$)\$\{(\w+):?[-?]", text)}
    assert not [match for text in texts for match in re.findall(r"(?<!\$)\$\{\w+\}", text)]
    shown = set(re.findall(r"^(\w+)=", (EXAMPLE / ".env.example").read_text(), re.MULTILINE))
    assert shown <= used
    assert used - shown <= {"WEB_GRACE_PERIOD", "SITES", "FRAPPE_SITE_NAME_HEADER"}


def test_containers_of_the_compose_files_get_variables_that_we_know_and_secrets_as_files_only() -> None:
    """A misspelt variable would be ignored; a password in the environment is what `docker inspect` shows."""
    others = {"FRAPPE_SITE_NAME_HEADER", "UPSTREAM_REAL_IP_ADDRESS", "BACKEND", "SOCKETIO", "ANNOUNCED"}
    seen = set()
    for path in EXAMPLE.glob("compose*.yaml"):
        for name, service in yaml.safe_load(path.read_text())["services"].items():
            if name in {"front", "db"}:
                continue
            for variable in service.get("environment", {}):
                seen.add(variable)
                assert variable not in settings.SECRETS, (path.name, name, variable)
                assert variable.removesuffix("_FILE") in settings.VARIABLES | others, (path.name, name, variable)
            files = set(service.get("secrets", ()))
            named = {
                word.rpartition("/")[2]
                for word in map(str, service.get("environment", {}).values())
                if "/run/secrets" in word
            }
            assert named <= files, (path.name, name)
    assert {"SITE", "DB_ROOT_PASS_FILE", "COORDINATE_URL_FILE"} <= seen


def test_the_examples_list_of_apps_is_one() -> None:
    """As make-bench reads it."""
    rows = json.loads((EXAMPLE / "apps.json.example").read_text())
    assert {"url", "branch"} == set(rows[0])


def test_helm_finds_nothing_in_the_chart() -> None:
    """Warnings count; an icon is a matter of taste."""
    report = helm_python.chart.lint(CHART, strict=True)
    found = [message for message in report["messages"] if "icon" not in message["error"]]
    assert (report["total_charts_linted"], found, report["errors"]) == (1, [], [])


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES, ids=["default", "everything"])
def test_the_rendered_chart_is_valid_strictly(values: dict[str, Any], version: str) -> None:
    """On the oldest and the newest Kubernetes; an unknown property is found."""
    objects = _rendered(values)
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)
    (claims, deployments) = (
        [one for one in objects if one["kind"] == kind] for kind in ("PersistentVolumeClaim", "Deployment")
    )
    assert (len(claims), len(deployments)) == (0 if values else 1, 5)
    deployments[0]["spec"]["template"]["spec"]["containers"][0]["livnessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployments[0], version, strict=True)


def _pods(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the pods of all deployments by component."""
    found = [one["spec"]["template"] for one in _rendered(values) if one["kind"] == "Deployment"]
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["spec"] for pod in found}


@pytest.mark.parametrize("values", VALUES, ids=["default", "everything"])
def test_no_pod_has_a_secret_in_its_environment_or_a_probe_that_ends_a_leader(values: dict[str, Any]) -> None:
    """Liveness asks whether the process lives, nothing else; there is no startup probe; links of services are off."""
    pods = _pods(values)
    assert set(pods) == {"web", "socketio", "scheduler", "worker-short", "worker-long"}
    for component, pod in pods.items():
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            assert container["livenessProbe"]["exec"]["command"] == ["frappe-bootstrap", "live"]
            assert "startupProbe" not in container
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            environ = {row["name"]: row.get("value") for row in container["env"]}
            assert not settings.SECRETS & set(environ), component
            mine = container["name"] == "web"
            assert ("DB_ROOT_PASS_FILE" in environ, environ["BOOTSTRAP_ROLE"]) == (mine, "auto" if mine else "follow")


def test_a_step_that_is_finished_before_the_end_has_the_time_for_it() -> None:
    """STOP_POLICY=finish: the pod's grace is longer than STOP_GRACE."""
    assert _pods(VALUES[0])["web"]["terminationGracePeriodSeconds"] == 60
    assert _pods(VALUES[1])["web"]["terminationGracePeriodSeconds"] > 3600


@pytest.mark.parametrize("values", VALUES, ids=["default", "everything"])
def test_a_pod_that_ends_takes_requests_until_every_proxy_knows(values: dict[str, Any]) -> None:
    """What serves outlives the nginx in front of it; both have the time that is left for what they have begun."""
    assert f"--graceful-timeout {GRACEFUL} " in (EXAMPLE / "bin" / "serve-web").read_text()
    pod = _pods(values)["web"]
    sleeps = {one["name"]: _seconds(one["lifecycle"]["preStop"]["exec"]["command"]) for one in pod["containers"]}
    assert 5 < sleeps["nginx"] < sleeps["web"]
    assert sleeps["web"] + GRACEFUL < pod["terminationGracePeriodSeconds"]


def test_a_pod_that_could_not_end_in_time_is_not_rendered() -> None:
    """Who waits longer before the end has less left for the requests that are under way."""
    with pytest.raises(Exception, match=r"web\.gracePeriodSeconds must be at least"):
        _rendered({"web": {"leaveSeconds": 30}})
    _rendered({"web": {"leaveSeconds": 30, "gracePeriodSeconds": 65}})


def _seconds(command: list[str]) -> int:
    program, seconds = command
    assert program == "sleep"
    return int(seconds)


@pytest.mark.parametrize("domain", ["cluster.local", "elsewhere.example"])
def test_every_service_that_the_chart_names_is_there_and_has_pods(domain: str) -> None:
    """By its whole name where nginx asks for it, which knows no search domains."""
    objects = _rendered({**VALUES[1], "clusterDomain": domain})
    services = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "Service"}
    ports = {name: {str(port["port"]) for port in spec["ports"]} for name, spec in services.items()}
    pods = [one["spec"]["template"] for one in objects if one["kind"] == "Deployment"]
    for name, spec in services.items():
        (pod,) = [pod for pod in pods if spec["selector"].items() <= pod["metadata"]["labels"].items()]
        (port,) = spec["ports"]
        assert port["targetPort"] in {9000, *_named_ports(pod["spec"])}, name
    named = re.findall(r"\b(shop-frappe[a-z-]*)\.erp\.svc\.([a-z.]+):(\d+)", json.dumps(objects))
    assert {name for name, _, _ in named} == {"shop-frappe-socketio"}
    assert {where for _, where, _ in named} == {domain}
    assert all(port in ports[name] for name, _, port in named)
    assert not re.findall(r"\.svc\b(?!\.)", json.dumps(objects)), "half a name"
    (ingress,) = [one for one in objects if one["kind"] == "Ingress"]
    backends = {path["backend"]["service"]["name"] for path in ingress["spec"]["rules"][0]["http"]["paths"]}
    fallbacks = {value for key, value in ingress["metadata"]["annotations"].items() if key.endswith("default-backend")}
    assert len(backends) == len(fallbacks) == 1
    assert backends | fallbacks <= set(services)


def _named_ports(pod: dict[str, Any]) -> set[str]:
    """Return the names of a pod's ports; no two share one."""
    names = [port["name"] for container in pod["containers"] for port in container.get("ports", ())]
    assert len(names) == len(set(names))
    return set(names)


def test_the_waiting_room_is_reachable_while_no_pod_is_ready() -> None:
    """Point 24: a service that has addresses of pods that are not ready, and an ingress that falls back to it."""
    services = {one["metadata"]["name"]: one["spec"] for one in _rendered(VALUES[1]) if one["kind"] == "Service"}
    assert services["shop-frappe-waiting"]["publishNotReadyAddresses"] is True
    assert "publishNotReadyAddresses" not in services["shop-frappe"]
    (ingress,) = [one for one in _rendered(VALUES[1]) if one["kind"] == "Ingress"]
    assert "shop-frappe-waiting" in ingress["metadata"]["annotations"].values()


def test_the_waiting_room_is_that_of_the_health_port_which_never_serves_the_site() -> None:
    """The service has pods of an older revision, too, behind whose web port is the site as it was."""
    services = {one["metadata"]["name"]: one["spec"] for one in _rendered({}) if one["kind"] == "Service"}
    (port,) = services["shop-frappe-waiting"]["ports"]
    (found,) = [
        (container["name"], place["containerPort"], {row["name"]: row.get("value") for row in container["env"]})
        for container in _pods({})["web"]["containers"]
        for place in container["ports"]
        if place["name"] == port["targetPort"]
    ]
    name, number, environ = found
    assert (name, str(number)) == ("nginx", environ["HEALTH_PORT"])
    assert environ["HEALTH_PORT"] != environ["WAITING_ROOM_PORT"]
