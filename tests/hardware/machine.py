"""A computer in software, with NICs that this one does not have: QEMU's models of Intel's 82576 (SR-IOV, two queues,
hash of flows) and of virtio on PCI, behind an IOMMU. Its processor is emulated too, so that it runs anywhere; it is some
twenty times slower than this machine, and nothing in it is a measurement.

QEMU and the kernel are Debian's, unpacked under `.cache/machine` and run from there: nothing of them is installed here.
The machine's disk is this machine's own, read only, with what it writes kept in its memory.
"""

import json
import os
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "interop"))
from harness.process import CACHE, Process, bounded  # noqa: E402

HOME = CACHE / "machine"
TREE = HOME / "tree"
# QEMU before 10.0.5 (bookworm's and its backports' among them) answers no access to virtual functions' registers.
SUITE, PACKAGES = "trixie", ("qemu-system-x86", "linux-image-amd64", "busybox-static")
MIRROR = os.environ.get("TOWPATH_DEBIAN_MIRROR", "http://deb.debian.org/debian")
# What the initial file system needs to see this machine's disk.
BOOT_MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay")
INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in {modules}; do modprobe $module; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose disk /disk
mount -t tmpfs tmpfs /writes; mkdir /writes/upper /writes/work
mount -t overlay -o lowerdir=/disk,upperdir=/writes/upper,workdir=/writes/work overlay /new
for dir in proc sys dev; do mount --move /$dir /new/$dir; done
exec switch_root /new {start}
"""
# Each NIC in a slot of its own (the PCI bus of the same number): (slot, wire, model). What is on one wire hears each
# other.
NICS = (
    (1, 0, "igb,mac=02:00:00:00:00:01"),
    (2, 1, "igb,mac=02:00:00:00:01:01"),
    (3, 1, "e1000e,mac=02:00:00:00:01:02"),
    (4, 2, "virtio-net-pci,mac=02:00:00:00:02:01,iommu_platform=on,disable-legacy=on,disable-modern=off"),
    (5, 2, "e1000e,mac=02:00:00:00:02:02"),
)


# A lost interrupt of a one-shot timer stops a kernel's processor for good, and an emulated timer does lose one now and
# then; a periodic timer has the next.
PERIODIC = "highres=off nohz=off"


class Missing(Exception):
    """Why there can be no such machine here."""


def _run(command, seconds):
    status, said = bounded(command, seconds)
    if status != 0:
        raise Missing(f"{' '.join(map(str, command[:3]))} failed: {' '.join(said.split())[-400:]}")


def build():
    """Fetches and unpacks what the machine is made of, unless it is there."""
    stamp = HOME / "stamp"
    if stamp.exists():
        return
    for program in ("debootstrap", "depmod", "dpkg-deb"):
        if not shutil.which(program):
            raise Missing(f"{program} is not installed (apt-get install debootstrap kmod)")
    shutil.rmtree(HOME, ignore_errors=True)
    TREE.mkdir(parents=True)
    packages = HOME / "packages"
    wanted = f"--include={','.join(PACKAGES)}"
    fetch = ["debootstrap", "--download-only", "--variant=minbase", wanted, SUITE, packages, MIRROR]
    try:
        _run(fetch, 300)
    except Missing:
        # A mirror that did not answer once often does the second time.
        _run(fetch, 300)
    for archive in sorted((packages / "var/cache/apt/archives").glob("*.deb")):
        _run(["dpkg-deb", "-x", archive, TREE], 120)
    shutil.rmtree(packages)
    _run(["depmod", "-b", TREE, kernel()], 60)
    stamp.touch()


def kernel():
    """The version of the machine's kernel."""
    return min(path.name for path in (TREE / "usr/lib/modules").iterdir())


def initial(start):
    """The machine's first file system, as the kernel takes it: its disk mounted, it starts `start`."""
    modules = f"usr/lib/modules/{kernel()}"
    _, listed = bounded(["modprobe", "-d", TREE, "-S", kernel(), "--show-depends", "-a", *BOOT_MODULES], 20)
    files = {line.split()[1] for line in listed.splitlines() if line.startswith("insmod")}
    entries = {"lib": "usr/lib", "init": INIT.format(modules=" ".join(BOOT_MODULES), start=start).encode()}
    entries |= {f"bin/{name}": "busybox" for name in ("sh", "mount", "modprobe", "mkdir", "switch_root")}
    entries |= {"bin/busybox": (TREE / "usr/bin/busybox").read_bytes()}
    entries |= {f"{modules}/{path.name}": path.read_bytes() for path in (TREE / modules).glob("modules.*")}
    for file in files:
        inside = file.partition("/lib/modules/")[2]
        entries[f"usr/lib/modules/{inside}"] = Path(file).read_bytes()
    for folder in ("proc", "sys", "dev", "disk", "writes", "new"):
        entries[folder] = None
    return archive(entries)


def archive(entries):
    """An archive in cpio's `newc` format of {path: bytes of a file, target of a link, or None for a folder}."""
    folders = {str(parent) for path in entries for parent in Path(path).parents} - {"."}
    entries = {**dict.fromkeys(folders), **entries, "TRAILER!!!": b""}
    out = bytearray()
    order = sorted(entries, key=lambda path: (path == "TRAILER!!!", path))
    for number, path in enumerate(order, 1):
        content = entries[path]
        kind = stat.S_IFDIR if content is None else stat.S_IFLNK if isinstance(content, str) else stat.S_IFREG
        body = content.encode() if isinstance(content, str) else content or b""
        fields = (number, kind | 0o755, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(path) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + path.encode() + b"\0"
        out += bytes(-len(out) % 4) + body
        out += bytes(-len(out) % 4)
    return bytes(out)


class Machine:
    """Runs `start` as its first process, and ends when that powers it off. Its console's lines are in `lines`."""

    def __init__(self, start, memory_mib=4096):
        self.dir = Path(tempfile.mkdtemp(prefix="towpath-machine-"))
        (self.dir / "initial").write_bytes(initial(start))
        libs, share = TREE / "usr/lib/x86_64-linux-gnu", TREE / "usr/share"
        self.wires = self.dir / "monitor.sock"
        command = [
            TREE / "usr/lib64/ld-linux-x86-64.so.2", "--library-path", libs, TREE / "usr/bin/qemu-system-x86_64",
            "-L", share / "qemu", "-L", share / "seabios", "-nodefaults", "-no-reboot", "-display", "none",
            "-machine", "q35,accel=tcg,kernel-irqchip=split", "-cpu", "max", "-smp", "2", "-m", str(memory_mib),
            "-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on",
            "-virtfs", "local,path=/,mount_tag=disk,security_model=none,readonly=on,multidevs=remap",
            "-kernel", TREE / f"boot/vmlinuz-{kernel()}", "-initrd", self.dir / "initial",
            "-append", f"console=ttyS0 quiet panic=-1 intel_iommu=on {PERIODIC}",
            "-serial", "stdio", "-monitor", "none", "-qmp", f"unix:{self.wires},server=on,wait=off",
        ]  # fmt: skip
        for slot, wire, model in NICS:
            command += [
                "-device", f"pcie-root-port,id=slot{slot},slot={slot}", "-netdev", f"hubport,id=nic{slot},hubid={wire}",
                "-device", f"{model},bus=slot{slot},netdev=nic{slot},romfile=",
            ]  # fmt: skip
        self.process = Process(command, {"QEMU_MODULE_DIR": str(libs / "qemu")}, name="qemu")

    @property
    def lines(self):
        return self.process.out

    def plug(self, nic, is_in):
        """Puts the cable of a NIC in, or pulls it out."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(5)
            monitor.connect(str(self.wires))
            said = monitor.makefile("rw")
            said.readline()
            for command in ({"execute": "qmp_capabilities"}, {"execute": "set_link", "arguments": {"name": nic, "up": is_in}}):
                said.write(json.dumps(command))
                said.flush()
                while "return" not in (answer := json.loads(said.readline())):
                    if "error" in answer:
                        raise OSError(f"{nic}: {answer['error']['desc']}")

    def end(self):
        self.process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)
