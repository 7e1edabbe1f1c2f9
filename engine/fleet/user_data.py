"""A node's user data: what turns a bare instance of any provider into a node of this fleet at its first boot."""

from pydantic import SecretStr

from agent.config import AgentFile, MetadataFlavour
from agent.overlay_wire import UNDERLAY_MTU
from engine.model.placement import Node
from engine.model.value import Value

_END = "SHARDWRIGHT_CONFIG"


class UserDataSettings(Value):
    """The same for every node of one provider."""

    control_url: str
    """Where the node reaches the control plane's join listener."""
    control_ca_pem: str
    provider_kind: str
    """Decides how reclaim notices are read; a kind without a flavour of its own counts as a network."""
    metadata_url: str | None = None
    vouched: bool = False
    """The provider vouches for its instances: no token goes into their user data."""
    run_lease_seconds: float | None = None
    """How long a node's shards run on without the control plane; None: for ever."""
    underlay_mtu: int = UNDERLAY_MTU
    """What every way between the fleet's nodes carries."""
    post_copy: bool = False
    """Guests may run before all their memory is there: their QEMU, which is no root, needs the kernel's leave."""
    package: str | None = None
    """What pip installs where the image lacks the agent; None: nothing is, and the boot fails by name.

    There is no default on purpose: a name that nobody owns on an index must not be installed by every node.
    """


def render_user_data(node: Node, join_token: SecretStr | None, settings: UserDataSettings) -> str:
    """A /bin/sh script as cloud-init runs it; the same arguments give the same text. With a join token it is a secret;
    without one the instance's provider vouches for it.

    SHARDWRIGHT_WORK_DIR and SHARDWRIGHT_PYTHON, where set, say where the agent keeps its files and what runs it. On a
    host with systemd the agent becomes a service, unless SHARDWRIGHT_PYTHON is set: somebody else looks after it then,
    and the kernel's settings are theirs, too. What the agent reads from its environment goes into that service.
    """
    known = {flavour.value for flavour in MetadataFlavour}
    flavour = MetadataFlavour(settings.provider_kind) if settings.provider_kind in known else MetadataFlavour.NETWORK
    config = AgentFile(
        control_url=settings.control_url,
        node=node.id,
        join_token=join_token,
        control_ca_pem=settings.control_ca_pem,
        capacity=node.resources,
        metadata_url=settings.metadata_url,
        metadata_flavour=flavour,
        run_lease_seconds=settings.run_lease_seconds,
        underlay_mtu=settings.underlay_mtu,
    )
    return (
        _SCRIPT.replace("@CONFIG@", config.as_text())
        .replace("@PACKAGE@", settings.package or "")
        .replace("@POST_COPY@\n", _POST_COPY if settings.post_copy else "")
        .replace("@END@", _END)
    )


_SCRIPT = """#!/bin/sh
# Shardwright: joins this instance to its control plane and runs the node agent.
set -eu
umask 077
work="${SHARDWRIGHT_WORK_DIR:-${HOME:-/var/lib}/shardwright-agent}"
python="${SHARDWRIGHT_PYTHON:-python3}"
mkdir -p "$work"
cat > "$work/agent.json" <<'@END@'
@CONFIG@
@END@
package='@PACKAGE@'
if ! "$python" -c 'import agent.config' 2> /dev/null; then
  if [ -z "$package" ]; then
    echo "shardwright: this image has no agent, and control.agent_package names none to install" >&2
    exit 1
  fi
  if command -v apt-get > /dev/null; then
    apt-get update -q && apt-get install -q -y qemu-system-x86 qemu-utils busybox-static iproute2 nftables \\
      wireguard-tools python3-venv
  fi
  "$python" -m venv "$work/venv"
  python="$work/venv/bin/python"
  "$python" -m pip install --quiet "$package"
fi
@POST_COPY@
units="${SHARDWRIGHT_UNIT_DIR:-/etc/systemd/system}"
given=$(env | sed -n -E 's/^(SHARDWRIGHT_(UNDERLAY_ADDRESS|OVERLAY_ENDPOINT|METADATA_URL)=.*)/Environment=\\1/p')
if [ -z "${SHARDWRIGHT_PYTHON:-}" ] && [ -d "${SHARDWRIGHT_SYSTEMD:-/run/systemd/system}" ]; then
  # A service comes back after a crash and after a reboot. Guests and their watchdog are not ended with it.
  cat > "$units/shardwright-agent.service" <<@END@
[Unit]
Description=Shardwright node agent
Wants=network-online.target
After=network-online.target

[Service]
Environment=HOME=${HOME:-/root}
$given
ExecStart=$(command -v "$python") -m agent --config $work/agent.json
Restart=on-failure
RestartSec=5
KillMode=process

[Install]
WantedBy=multi-user.target
@END@
  chmod 644 "$units/shardwright-agent.service"
  systemctl daemon-reload
  exec systemctl enable --now shardwright-agent.service
fi
exec "$python" -m agent --config "$work/agent.json"
"""

# Now and after every boot. Where the kernel does not take it the agent says so at each move, which goes on without.
_POST_COPY = """if [ -z "${SHARDWRIGHT_PYTHON:-}" ]; then
  setting="${SHARDWRIGHT_SYSCTL_DIR:-/etc/sysctl.d}/60-shardwright.conf"
  echo 'vm.unprivileged_userfaultfd = 1' > "$setting" && chmod 644 "$setting" && sysctl -q -p "$setting" ||
    echo "shardwright: vm.unprivileged_userfaultfd could not be set; moves go without post-copy" >&2
fi
"""
