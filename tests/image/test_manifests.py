"""What examples/frappe ships besides code: the Dockerfile, compose files and the chart, judged by their own tools."""

from __future__ import annotations

import json
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
PLANTED = {
    "Dockerfile": ("RUN apt-get update", "RUN cd / && sudo apt-get update"),
    "compose": ("environment:", "enviroment:"),
}


def _run(program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


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


@pytest.mark.parametrize(
    "name", ["compose.yaml", "compose.processes.yaml", "compose.sentinel.yaml", "compose.leases.yaml"]
)
def test_compose_files_are_what_the_specification_says(tmp_path: Path, name: str) -> None:
    """A misspelt key is found."""
    done = _compose(EXAMPLE / name)
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "compose.yaml"
    bad.write_text((EXAMPLE / name).read_text().replace(*PLANTED["compose"]))
    assert _compose(bad).returncode == 1


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
    others = {"FRAPPE_SITE_NAME_HEADER", "UPSTREAM_REAL_IP_ADDRESS", "BACKEND", "SOCKETIO"}
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


def test_the_waiting_room_is_reachable_while_no_pod_is_ready() -> None:
    """Point 24: a service that has addresses of pods that are not ready, and an ingress that falls back to it."""
    services = {one["metadata"]["name"]: one["spec"] for one in _rendered(VALUES[1]) if one["kind"] == "Service"}
    assert services["shop-frappe-waiting"]["publishNotReadyAddresses"] is True
    assert "publishNotReadyAddresses" not in services["shop-frappe"]
    (ingress,) = [one for one in _rendered(VALUES[1]) if one["kind"] == "Ingress"]
    assert "shop-frappe-waiting" in ingress["metadata"]["annotations"].values()
