"""What runs inside the machine of `machine.py`: each case takes a NIC as an operator would, by `scripts/`, gives it to a
node, and speaks to it from the NIC at the other end of the wire, which is in a network namespace of its own.

Prints a line a case, and `hardware: N ok, M failed` at its end. `plug: NIC in|out` asks whoever runs the machine.
"""

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "interop"))
import run as interop  # noqa: E402
from harness import lab, process, tools, towpath  # noqa: E402
from harness.process import bounded  # noqa: E402

CASES = (
    "empty_unary large_unary client_streaming server_streaming ping_pong custom_metadata status_code_and_message "
    "cancel_after_begin timeout_on_sleeping_server concurrent_300 deadline_seen cancel_seen mebibyte_both_ways "
    "stream_of_1000"
).split()
VF_MAC = "02:00:0a:07:00:0a"
# Segments that may be sent again where nothing is lost.
LATE_MAX = 5
# By slot, as `machine.py` has them.
SRIOV, WHOLE, WHOLE_FAR, VIRTIO, VIRTIO_FAR = (f"0000:{slot:02}:00.0" for slot in range(1, 6))


class Wrong(Exception):
    """What is not as it should be."""


def must(is_so, what):
    if not is_so:
        raise Wrong(what)


def sh(*command, seconds=30):
    status, said = bounded(command, seconds)
    must(status == 0, f"{' '.join(map(str, command))} ended with {status}:\n{said}")
    return said


def script(name, *words):
    """One of scripts/, and what it says."""
    return sh(ROOT / "scripts" / f"{name}.sh", *words)


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        must(time.monotonic() < end, f"not within {seconds} s: {what}")
        time.sleep(0.1)


def interface(address):
    """The kernel's name for a NIC."""
    found = [path.name for path in Path(f"/sys/bus/pci/devices/{address}").glob("**/net/*")]
    return found[0] if found else None


def driver(address):
    link = Path(f"/sys/bus/pci/devices/{address}/driver")
    return link.resolve().name if link.exists() else None


class Wire:
    """A lab whose wire is a NIC's: the node has `device`, on `backend`; the far end is the interface of `far`."""

    def __init__(self, backend, device, far, mtu=1500, more=""):
        self.backend, self.interface = backend, interface(far)
        self.port = f'backend = "{backend}"\ndevice = "{device}"\n{more}'
        self.far = f"far-{os.getpid()}"
        lab.ip("netns", "add", self.far)
        lab.ip("-n", self.far, "link", "set", "lo", "up")
        lab.ip("link", "set", self.interface, "netns", self.far)
        lab.ip("-n", self.far, "link", "set", self.interface, "mtu", str(mtu), "up")
        lab.ip("-n", self.far, "addr", "add", f"{lab.FAR_ADDRESS}/24", "dev", self.interface)

    def prefix(self):
        return ["nsenter", "--target", "1", "--net"]

    def mend_bridge(self):
        return False

    def config(self):
        return f'[[port]]\nname = "fabric"\n{self.port}address = "{lab.NODE_ADDRESS}/24"\n'

    def end(self):
        # The namespace's end would give it back too, but not as long as one of its connections lingers.
        subprocess.run(["ip", "-n", self.far, "link", "set", self.interface, "netns", "1"], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.far], capture_output=True)
        until(lambda: Path(f"/sys/class/net/{self.interface}").exists(), 10, f"{self.interface} is back")


@contextlib.contextmanager
def bound(nic):
    """A NIC given to DPDK by the script, and given back."""
    before = driver(nic)
    script("nic", "bind", interface(nic) or nic)
    must(driver(nic) == "vfio-pci", f"{nic} has {driver(nic)}")
    try:
        yield
    finally:
        script("nic", "restore", nic)
    must(driver(nic) == before, f"{nic} has {driver(nic)}, and had {before}")


@contextlib.contextmanager
def serving(wire, args=(), chain="LoadBalancing - Logging"):
    """A node on a wire, and a server of grpc-go at its far end. Gives the node and a function that plays cases."""
    program = tools.Program([process.CACHE / "go/client"], [process.CACHE / "go/server"])
    with lab.inside(wire):
        stop, endpoint = interop.start_server("go", program)
        node = None
        try:
            node = towpath.Node(towpath.policy(chain, [endpoint]), wire.backend, args=args, seconds=60)

            def play(cases=CASES, seconds=150):
                tally = interop.Tally()
                interop.run_client(tally, "", "go", program, node.endpoint, cases, seconds)
                must(not tally.failed and tally.passed == len(cases), f"{tally.failed}\n{node.process.tail()}")
                return tally.passed

            yield node, play
            must(node.alive(), f"the node has died:\n{node.process.tail()}")
        finally:
            stop()
            if node:
                status = node.stop(20)
    must(status == 0, f"the node ended with {status}")


def clean(node):
    """Nothing was lost or refused on a wire that loses nothing, but for what a kernel says of its own accord."""
    bad = ("_bad_", "timeouts", "no_buffer", "connect_errors", "link_downs", "refused")
    fine = ("bad_source", "bad_protocol")
    counted = {name: value for name, value in node.metrics().items() if name.startswith("towpath_port_") and value}
    wrong = {n: v for n, v in counted.items() if any(b in n for b in bad) and not any(f in n for f in fine)}
    # A machine in software that its host keeps from running is late now and then.
    wrong |= {n: v for n, v in counted.items() if "retransmits" in n and v > LATE_MAX}
    must(not wrong, f"counted: {wrong}")


def each_shard(node, counter, count):
    """What every shard has counted, which is more than nothing."""
    metrics = node.metrics()
    values = [metrics.get(f'towpath_port_{counter}_total{{port="fabric",shard="{shard}"}}', 0) for shard in range(count)]
    must(min(values) > 0, f"{counter} by shard: {values}")
    return values


def virtual_function():
    """An SR-IOV function, while the kernel keeps the NIC."""
    nic = interface(SRIOV)
    said = script("sriov", "create", nic, "2")
    # A physical function that is down answers none of its virtual ones.
    must(f"ip link set {nic} up" in said, f"no word of a link that is down:\n{said}")
    lab.ip("link", "set", nic, "up")
    vf = Path(f"/sys/class/net/{nic}/device/virtfn0").resolve().name
    lab.ip("link", "set", nic, "vf", "0", "mac", VF_MAC, "spoofchk", "off")
    must(f"{vf}  driver igbvf" in script("sriov", "status"), "sriov.sh status names the function")
    with bound(vf):
        seen = sh(towpath.binary(), "doctor")
        must(re.search(rf"vfio-pci +{vf}", seen), f"doctor does not name {vf}:\n{seen}")
        with serving(Wire("dpdk", vf, SRIOV)) as (node, play):
            for part in (f"port {vf} (net_e1000_igb_vf)", f"mac {VF_MAC}", "checksums by the port"):
                must(part in node.ready_line and "link is down" not in node.ready_line, node.ready_line)
            passed = play()
            clean(node)
    script("sriov", "remove", nic)
    must(not Path(f"/sys/bus/pci/devices/{vf}").exists(), f"{vf} is gone")
    return f"{passed} cases of grpc-go through {vf}, checksums by the port"


def hashed_queues():
    """A whole NIC with a queue for each of two shards, which hashes flows with our symmetric key."""
    with bound(WHOLE), serving(Wire("dpdk", WHOLE, WHOLE_FAR), ("--cores", "0,1")) as (node, play):
        must("2 queues by hash of the flow, symmetric key" in node.ready_line, node.ready_line)
        for _ in range(4):
            play(["channel_soak"])
        passed = play()
        accepts = each_shard(node, "accepts", 2)
        # An answer that came to the other shard would find no connection there.
        connects = each_shard(node, "connects", 2)
        clean(node)
    return f"{passed} cases, connections accepted by shard {accepts}, made {connects}"


def jumbo():
    """Frames of 9,000 bytes."""
    with bound(WHOLE), serving(Wire("dpdk", WHOLE, WHOLE_FAR, mtu=9000, more="mtu = 9000\n")) as (node, play):
        must("mtu 9000" in node.ready_line, node.ready_line)
        play(["mebibyte_both_ways"])
        total = {way: (node.total(f"port_{way}_bytes"), node.total(f"port_{way}_frames")) for way in ("rx", "tx")}
        clean(node)
    most = max(size / frames for size, frames in total.values())
    must(most > 2000, f"bytes and frames: {total}")
    return f"a mebibyte both ways, {most:.0f} bytes a frame"


def cable():
    """A cable that is pulled out and put in again."""
    with bound(WHOLE), serving(Wire("dpdk", WHOLE, WHOLE_FAR)) as (node, play):
        play(["empty_unary"])
        print("plug: nic2 out", flush=True)
        until(lambda: node.total("link_downs") >= 1, 20, "the node sees that its link is down")
        print("plug: nic2 in", flush=True)
        time.sleep(1)
        end = time.monotonic() + 40
        while True:
            try:
                play(["empty_unary"], 15)
                break
            except Wrong:
                must(time.monotonic() < end, "no call passes after the link is back")
        downs = each_shard(node, "link_downs", 2)
        must(downs == [1, 1], f"{downs} times down by shard, and it was once")
        passed = play(["large_unary", "stream_of_1000"])
    return f"down once, and {passed} cases after it"


def virtio():
    """A cloud machine's NIC."""
    with bound(VIRTIO), serving(Wire("dpdk", VIRTIO, VIRTIO_FAR)) as (node, play):
        must(f"port {VIRTIO} (net_virtio)" in node.ready_line, node.ready_line)
        passed = play()
        clean(node)
    return f"{passed} cases"


def netem():
    """A bad road, both ways: the kernel's network emulator loses, delays, reorders, repeats and breaks frames."""
    sh("modprobe", "-a", "sch_netem", "ifb", "act_mirred", "cls_matchall", "sch_ingress")
    trouble = "delay 2ms 1ms loss 1% duplicate 1% reorder 10% 50% corrupt 0.2%".split()
    with bound(WHOLE), serving(Wire("dpdk", WHOLE, WHOLE_FAR)) as (node, play):
        far = lab.current.interface
        # What this NIC has found right would be taken for right, although it is broken after that.
        sh("ethtool", "-K", far, "rx", "off", "gro", "off")
        sh("ip", "link", "add", "ifb0", "type", "ifb")
        sh("ip", "link", "set", "ifb0", "up")
        sh("tc", "qdisc", "add", "dev", far, "clsact")
        sh("tc", "filter", "add", "dev", far, "ingress", "matchall", "action", "mirred", "egress", "redirect", "dev", "ifb0")
        for device in (far, "ifb0"):
            sh("tc", "qdisc", "add", "dev", device, "root", "netem", *trouble)
        passed = play(["empty_unary", "large_unary", "server_streaming", "concurrent_300", "mebibyte_both_ways", "stream_of_1000"])
        again = node.total("retransmit")
        broken = node.total("bad_tcp_checksum") + node.total("bad_ip") + node.total("rx_bad_checksum")
        dropped = re.findall(r"dropped (\d+)", sh("tc", "-s", "qdisc", "show", "dev", far))
        must(again > 0 and broken > 0, f"sent again {again}, broken {broken}")
    return f"{passed} cases; sent again {again:.0f}, broken frames refused {broken:.0f}, dropped on the way to us {dropped[0]}"


def native_xdp():
    """AF_XDP in a NIC's driver; the kernel keeps the NIC. Not on virtio: in this machine its driver stops sending for
    everybody, the kernel included, once a burst has filled its queue."""
    name = interface(WHOLE)
    lab.ip("link", "set", name, "up")
    with serving(Wire("xdp", name, WHOLE_FAR, more='mode = "drv"\n')) as (node, play):
        must(f"xdp on {name} (igb): drv mode" in node.ready_line, node.ready_line)
        passed = play()
        clean(node)
    return f"{passed} cases on igb"


ALL = (virtual_function, hashed_queues, jumbo, cable, virtio, netem, native_xdp)


def main():
    sh("modprobe", "-a", "igb", "igbvf", "e1000e", "virtio_net", "vfio-pci")
    until(lambda: all(interface(nic) for nic in (SRIOV, WHOLE, WHOLE_FAR, VIRTIO, VIRTIO_FAR)), 10, "all NICs")
    script("hugepages", "reserve", "512")
    passed = failed = 0
    for case in ALL:
        if sys.argv[1] not in case.__name__:
            continue
        start = time.monotonic()
        try:
            said = case()
            passed += 1
            print(f"ok   {case.__name__:<17} {time.monotonic() - start:5.1f} s  {said}", flush=True)
        except (Wrong, process.NotReady, subprocess.CalledProcessError, OSError) as wrong:
            failed += 1
            print(f"FAIL {case.__name__}: {wrong}", flush=True)
        finally:
            process.end_all()
    script("hugepages", "undo")
    print(f"hardware: {passed} ok, {failed} failed", flush=True)


if __name__ == "__main__":
    main()
