"""This host's part of the overlay: accepts views, and makes the kernel hold what they say (agent.overlay_state)."""

import logging
import os
import shutil
import socket
import subprocess
import threading
from dataclasses import fields, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.network import guest_link
from agent.overlay_state import (
    FILTERS,
    TABLE,
    Batches,
    KernelState,
    bridge_name,
    changes,
    check_newer,
    guest_mtu,
    ruleset,
    vxlan_name,
    wanted,
)
from agent.overlay_wire import UNDERLAY_MTU, OverlayView
from agent.wireguard import Tunnel, interface_name, run
from engine.errors import MissingPart
from engine.model.ids import NodeId, ShardId
from engine.model.value import Value

_COMMAND_SECONDS = 20
_PROBE = "swprobe"
_LOG = logging.getLogger("agent.overlay")
_STATE: TypeAdapter[KernelState] = TypeAdapter(KernelState)


class _Kept(Value):
    """``state.json``: what a restarted agent must know."""

    view: OverlayView
    may_hold: str
    """A KernelState: everything that the kernel may hold by now."""


class Overlay:
    """Files under ``work/overlay``. Safe to share between threads. The kernel's part outlives the agent."""

    def __init__(self, node: NodeId, work: Path, port: int, *, underlay_mtu: int = UNDERLAY_MTU, gateway: bool = False):
        """Brings the tunnel up with nobody in it yet. Raises MissingPart with what this host lacks."""
        self._node, self._gateway = node, gateway
        self._folder = work / "overlay"
        self._lock = threading.Lock()
        self._state: KernelState | None = None
        _require_parts()
        self._tunnel = Tunnel(interface_name(node, work), self._folder, port, underlay_mtu)
        self.public_key, self.port = self._tunnel.public_key, port
        self.mtu = guest_mtu(self._tunnel.mtu)
        self._kept = self._load()
        if self._tunnel.up() or self._kept is None:
            _nft(ruleset(self._tunnel.name, gateway=gateway))  # before the first peer: nothing gets in
        _probe_vxlan()

    @property
    def generation(self) -> int:
        """Of the view that is known; 0: none."""
        return self._kept.view.generation if self._kept else 0

    def apply(self, view: OverlayView) -> None:
        """Make it so; again = the same. Raises StaleEpoch for an older view, MissingPart for a kernel that refuses."""
        with self._lock:
            known = self._kept.view if self._kept else None
            check_newer(known, view)
            if not self._tunnel.there():
                # Known anew from here on: what is half done when it fails must be done whole the next time.
                self._state = known = None
                if self._tunnel.up():
                    _LOG.warning("the tunnel was gone and is made again")
            if self._state is None or known is None or (known.peers, known.tunnel) != (view.peers, view.tunnel):
                self._tunnel.configure(view.tunnel, view.peers)
            self._bring(view)

    def join_link(self, shard: ShardId) -> None:
        """A guest's link has just been made (anew): put it on its tenant's bridge, if it belongs to one by now."""
        with self._lock:
            if self._kept is None or self._state is None:
                return
            link = guest_link(self._node, shard)
            self._state = replace(
                self._state,
                attached=frozenset(one for one in self._state.attached if one[0] != link),
                local=frozenset(one for one in self._state.local if one[2] != link),
            )
            self._bring(self._kept.view)

    def _bring(self, view: OverlayView) -> None:
        there = {name for _, name in socket.if_nameindex()}
        links = {entry.shard: guest_link(self._node, entry.shard) for entry in view.entries}
        links = {shard: link for shard, link in links.items() if link in there}
        new = wanted(view, self._node, links, self._node if self._gateway else None)
        before = self._may_hold()
        self._keep(view, _union(before, new))
        if self._state is None or self._state.tunnel not in ("", new.tunnel):
            self._start_over(before, new)
        else:
            batches = changes(self._state, new, self.mtu)
            try:
                _nft(batches.nft or [f"list chain {family} {TABLE} {chain}" for family, chain in FILTERS])
            except MissingPart as problem:  # also where somebody has flushed what is ours
                _LOG.warning("the filters are loaded anew: %s", problem)
                _nft(self._whole_ruleset(new))
            _links(batches)
        self._state = new
        self._keep(view, new)
        missing = [
            name for vni in new.tenants for name in (bridge_name(vni), vxlan_name(vni)) if not _exists(name)
        ]  # fmt: skip
        if missing:
            self._state = None
            raise MissingPart("the kernel did not make the overlay's links", why=", ".join(missing))

    def _start_over(self, before: KernelState, new: KernelState) -> None:
        """After a start of the agent: what may be left over goes, what is wanted is made where it is not there."""
        _nft(self._whole_ruleset(new))
        if before.tunnel not in ("", new.tunnel):
            _links(changes(before, KernelState(), self.mtu))
        else:
            _links(changes(before, new, self.mtu))
        _links(changes(KernelState(), new, self.mtu))

    def _whole_ruleset(self, new: KernelState) -> list[str]:
        elements = KernelState(speakers=new.speakers, guests=new.guests)
        return ruleset(self._tunnel.name, gateway=self._gateway) + changes(KernelState(), elements, self.mtu).nft

    def _may_hold(self) -> KernelState:
        return _STATE.validate_json(self._kept.may_hold) if self._kept else KernelState()

    def _keep(self, view: OverlayView, may_hold: KernelState) -> None:
        """Readable by the next agent; a crash of the host takes the kernel's state with it, so nothing is synced."""
        self._kept = _Kept(view=view, may_hold=_STATE.dump_json(may_hold).decode())
        draft = self._folder / ".state.json.new"
        draft.write_text(self._kept.model_dump_json())
        draft.rename(self._folder / "state.json")

    def _load(self) -> _Kept | None:
        try:
            kept = _Kept.model_validate_json((self._folder / "state.json").read_bytes())
            _STATE.validate_json(kept.may_hold)
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as problem:
            _LOG.error("the overlay's state cannot be read and is made anew: %s", type(problem).__name__)
            return None
        return kept


def open_overlay(node: NodeId, work: Path, port: int, *, underlay_mtu: int = UNDERLAY_MTU) -> Overlay | None:
    """None, and a line in the log that says why, where this host cannot take part."""
    try:
        return Overlay(node, work, port, underlay_mtu=underlay_mtu)
    except MissingPart as problem:
        _LOG.warning("no overlay on this node, shards get QEMU's own network: %s", problem)
        return None


def _require_parts() -> None:
    if os.geteuid() != 0:
        raise MissingPart("the overlay needs root", why="it makes links and filters")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise MissingPart("/dev/net/tun is not there", next_step="modprobe tun")
    for program, package in (
        ("ip", "iproute2"),
        ("bridge", "iproute2"),
        ("nft", "nftables"),
        ("wg", "wireguard-tools"),
    ):
        if shutil.which(program) is None:
            raise MissingPart(f"{program} is not installed", next_step=f"install {package}")


def _probe_vxlan() -> None:
    """Later lines run with -force, so that a kernel without VXLAN must be found out now."""
    if not _exists(_PROBE):
        run(["ip", "link", "add", _PROBE, "type", "vxlan", "id", "1", "dstport", "4788", "nolearning"])
    run(["ip", "link", "del", _PROBE])


def _nft(lines: list[str]) -> None:
    """One transaction: all or nothing."""
    if lines:
        run(["nft", "-f", "-"], stdin="\n".join(lines) + "\n")


def _links(batches: Batches) -> None:
    for tool, lines in (("ip", batches.ip), ("bridge", batches.bridge)):
        if lines:
            try:
                done = subprocess.run(
                    [tool, "-force", "-batch", "-"], input="\n".join(lines) + "\n",
                    capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False,
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as problem:
                raise MissingPart(f"{tool} cannot be run", why=type(problem).__name__) from problem
            if done.stderr.strip():
                _LOG.debug("%s: %s", tool, done.stderr.strip())


def _exists(link: str) -> bool:
    try:
        socket.if_nametoindex(link)
    except OSError:
        return False
    return True


def _union(one: KernelState, other: KernelState) -> KernelState:
    sets = {
        part.name: getattr(one, part.name) | getattr(other, part.name) for part in fields(one) if part.name != "tunnel"
    }
    return KernelState(tunnel=one.tunnel or other.tunnel, **sets)
