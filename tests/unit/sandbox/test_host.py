"""What a machine gives a sandbox is judged truthfully, and every weakness comes with something to do."""

from pathlib import Path

import pytest

from crank.sandbox import host, layers


@pytest.mark.parametrize(
    ("finding", "status"),
    [
        (host.kernel_finding("6.1.0-amd64"), host.OK),
        (host.kernel_finding("5.4.0"), host.FAIL),
        (host.kernel_finding("strange"), host.FAIL),
        (host.landlock_finding(0), host.WARN),
        (host.landlock_finding(3), host.OK),
        (host.landlock_finding(7), host.OK),
        (host.seccomp_finding(Path("/nowhere")), host.FAIL),
        (host.cgroup_finding(None), host.WARN),
        (host.cgroup_finding("v2"), host.OK),
        (host.account_finding(privileged=True, uid=0), host.OK),
        (host.account_finding(privileged=False, uid=1000), host.OK),
        (host.account_finding(privileged=False, uid=0), host.FAIL),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_findings_are_judged(finding: host.Finding, status: str) -> None:
    """Each fact has its judgement, and what is not right has a fix."""
    assert finding.status == status
    assert finding.text.endswith(".")
    assert bool(finding.fix) == (status != host.OK)


def test_a_partial_landlock_says_what_it_lacks() -> None:
    """An older Landlock is named with what other walls must hold."""
    assert "TCP and abstract sockets" in host.landlock_finding(3).text


def test_a_missing_layer_has_a_code_and_a_fix() -> None:
    """The fault names the layer in its code and tells what to do."""
    fault = layers.missing("user_namespace", "EPERM")
    assert fault.error_code == "layer_user_namespace"
    assert fault.fix is not None
    assert "apparmor_restrict_unprivileged_userns" in fault.fix


@pytest.mark.parametrize(
    ("kind", "typed"),
    [
        ("container", "docker run --security-opt"),
        ("wsl", "wsl --update"),
        ("ubuntu", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        ("plain", None),
    ],
)
def test_each_kind_of_machine_has_its_own_fix(tmp_path: Path, kind: str, typed: str | None) -> None:
    """Where user namespaces are refused, what to type depends on what refuses them."""
    version, container, sysctls = tmp_path / "version", tmp_path / "dockerenv", tmp_path / "kernel"
    sysctls.mkdir()
    version.write_text(f"Linux version 6.6.0-{'microsoft-standard-WSL2' if kind == 'wsl' else 'generic'}")
    (sysctls / "apparmor_restrict_unprivileged_userns").write_text("1\n" if kind == "ubuntu" else "0\n")
    if kind == "container":
        container.touch()
    fix = host.machine_fix(version, container, sysctls)
    assert (typed in fix) if typed else fix == ""
