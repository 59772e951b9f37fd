"""Raw ports: the node in one network namespace, every other program at the far end of a veth pair in another.

    with lab.entered("xdp-drv"):   # root; this thread, threads and processes it starts are in the far namespace
        node = towpath.Node(…)     # in the near one, on a raw port

Both are gone when the block ends.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
import time

from .process import Process

FAR_ADDRESS, NODE_ADDRESS, PORT = "10.77.0.1", "10.77.0.2", 15001
# What `[[port]]` says.
RAW = {
    "xdp-skb": 'backend = "xdp"\ndevice = "node0"\nmode = "skb"\n',
    "xdp-drv": 'backend = "xdp"\ndevice = "node0"\nmode = "drv"\n',
    "dpdk-packet": 'backend = "dpdk"\ndevice = "net_af_packet0,iface=node0"\n',
    "dpdk-xdp": 'backend = "dpdk"\ndevice = "net_af_xdp0,iface=node0"\n',
    "dpdk-virtio": 'backend = "dpdk"\ndevice = "net_virtio_user0,path={dir}/vhost.sock,queue_size=1024"\n',
    "dpdk-memif": 'backend = "dpdk"\ndevice = "net_memif0,role=client,socket-abstract=no,socket={dir}/memif.sock"\n',
}
# A driver without a wire needs a peer: its device, up to where its socket is named, and that socket.
BRIDGES = {
    "dpdk-memif": ("net_memif0,role=server,socket-abstract=no,socket", "memif.sock"),
    "dpdk-virtio": ("net_vhost0,iface", "vhost.sock"),
}
CLONE_NEWNET = 0x40000000
current = None


def missing():
    """Why raw ports cannot be tested here, or None."""
    if os.geteuid() != 0:
        return "raw ports need root"
    for program in ("ip", "ethtool"):
        if not shutil.which(program):
            return f"raw ports need {program} (apt-get install iproute2 ethtool)"
    return None


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def enter(namespace):
    """This thread's network namespace; what it starts from now on is there too."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Lab:
    def __init__(self, name):
        self.name = name
        self.dir = tempfile.mkdtemp(prefix="towpath-lab-")
        self.near, self.far = (f"tp-{end}-{os.getpid()}" for end in ("near", "far"))
        for namespace in (self.near, self.far):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", self.near, "link", "add", "node0", "type", "veth", "peer", "name", "far0", "netns", self.far)
        ip("-n", self.far, "addr", "add", f"{FAR_ADDRESS}/24", "dev", "far0")
        for namespace, device in ((self.near, "node0"), (self.far, "far0")):
            # A raw port sees frames as they are on the wire: whole checksums, no segments above the MTU.
            offloads = [word for kind in ("tx", "sg", "tso", "gso", "gro") for word in (kind, "off")]
            self.run(namespace, "ethtool", "-K", device, *offloads)
            ip("-n", namespace, "link", "set", device, "up")
        self.bridge = None
        self.mend_bridge()

    @staticmethod
    def run(namespace, *command):
        done = subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")

    def mend_bridge(self):
        """Starts what is between the node's device and the veth pair, where something has to be, unless it runs: testpmd,
        which passes frames on as they are. True if it has died since.

        When its peer goes, DPDK's memif server now and then falls over a ring it has just unmapped: a SIGSEGV in
        librte_net_memif 22.11, if it is interrupted within a burst.
        """
        if self.name not in BRIDGES or (self.bridge and self.bridge.alive()):
            return False
        has_died = self.bridge is not None
        vdev, socket = BRIDGES[self.name]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.dir}/{socket}")
        command = [
            *self.prefix(), "dpdk-testpmd", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry",
            f"--file-prefix=lab{os.getpid()}", "--lcores", "0,1",
            f"--vdev={vdev}={self.dir}/{socket}",
            "--vdev=net_af_packet0,iface=node0", "--", "--forward-mode=io", "--auto-start",
            "--total-num-mbufs=16384", "--stats-period=3600",
        ]  # fmt: skip
        self.bridge = Process(command, name="testpmd")
        end = time.monotonic() + 15
        while not os.path.exists(f"{self.dir}/{socket}"):
            if time.monotonic() > end or not self.bridge.alive():
                raise OSError(f"testpmd did not start: {self.bridge.tail()}")
            time.sleep(0.05)
        return has_died

    def prefix(self):
        """Runs a command where the node is."""
        return ["ip", "netns", "exec", self.near]

    def config(self):
        """What `node.toml` says of the port."""
        port = RAW[self.name].format(dir=self.dir)
        return f'[[port]]\nname = "fabric"\n{port}address = "{NODE_ADDRESS}/24"\n'

    def end(self):
        if self.bridge:
            self.bridge.kill()
        for namespace in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)


def host():
    """The address test servers listen on."""
    return FAR_ADDRESS if current else "127.0.0.1"


@contextlib.contextmanager
def entered(name):
    """In the lab of a raw backend; where we are, for a kernel one."""
    if name not in RAW:
        yield None
        return
    with inside(Lab(name)) as lab:
        yield lab


@contextlib.contextmanager
def inside(lab):
    """Where the far end of a lab is; the lab ends with the block."""
    global current
    home = open("/proc/thread-self/ns/net")
    try:
        with open(f"/run/netns/{lab.far}") as far:
            enter(far)
        current = lab
        os.environ["TOWPATH_TEST_HOST"] = FAR_ADDRESS
        yield lab
    finally:
        current = None
        os.environ.pop("TOWPATH_TEST_HOST", None)
        enter(home)
        home.close()
        lab.end()
