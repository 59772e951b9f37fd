"""The scripts that only root can run, tested by what they do: on a fake sysfs with a fake kernel behind it, and the lab
for real, in namespaces. Standard library only; `shellcheck` where it is installed.

Without root the lab is skipped with a line that says so; with CI=true that fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
UPLINK, NIC = "0000:01:00.0", "0000:3b:00.0"
ROUTES = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n" \
         "uplink.7 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n"  # fmt: skip


class Sysfs:
    """Two NICs: `uplink`, under a VLAN with the default route, and `eth1`, which has virtual functions. A thread plays
    the kernel: it answers what is written to the files that the real one answers, within a few milliseconds."""

    def __init__(self, root):
        self.root, self.pci = root, root / "sys/bus/pci"
        self.net = root / "sys/class/net"
        self.seen, self.vfs, self.stop = [], 0, threading.Event()
        self.write("proc/net/route", ROUTES)
        self.write("proc/mounts", "sysfs /sys sysfs rw 0 0\n")
        for driver in ("ixgbe", "vfio-pci"):
            self.write(f"sys/bus/pci/drivers/{driver}/unbind", "")
        self.write("sys/bus/pci/drivers_probe", "")
        self.device(UPLINK, "uplink", "7")
        self.device(NIC, "eth1", "12")
        (self.net / "uplink" / "upper_uplink.7").symlink_to("../uplink.7")
        (self.net / "uplink.7").mkdir()
        self.write(f"sys/bus/pci/devices/{NIC}/sriov_totalvfs", "4\n")
        self.write(f"sys/bus/pci/devices/{NIC}/sriov_numvfs", "0\n")
        for pool in ("sys/kernel/mm", "sys/devices/system/node/node0"):
            for name in ("nr_hugepages", "free_hugepages"):
                self.write(f"{pool}/hugepages/hugepages-2048kB/{name}", "3\n")
        self.kernel = threading.Thread(target=self.answer, daemon=True)
        self.kernel.start()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def device(self, address, net, group):
        dev = self.pci / "devices" / address
        (dev / "net" / net).mkdir(parents=True)
        (dev / "class").write_text("0x020000\n")
        (dev / "driver_override").write_text("")
        (dev / "driver").symlink_to(self.pci / "drivers/ixgbe")
        groups = self.root / "sys/kernel/iommu_groups" / group / "devices"
        groups.mkdir(parents=True, exist_ok=True)
        (groups / address).symlink_to(dev)
        (dev / "iommu_group").symlink_to(groups.parent)
        (self.net / net).mkdir(parents=True)
        (self.net / net / "device").symlink_to(dev)

    def driver(self, address):
        link = self.pci / "devices" / address / "driver"
        return link.readlink().name if link.is_symlink() else None

    def answer(self):
        while not self.stop.is_set():
            for unbind in self.pci.glob("drivers/*/unbind"):
                address = self.take(unbind)
                if address and self.driver(address) == unbind.parent.name:
                    (self.pci / "devices" / address / "driver").unlink()
            address = self.take(self.pci / "drivers_probe")
            if address and self.driver(address) is None:
                dev = self.pci / "devices" / address
                wanted = (dev / "driver_override").read_text().strip() or "ixgbe"
                (dev / "driver").symlink_to(self.pci / "drivers" / wanted)
            self.virtual_functions()
            time.sleep(0.002)

    def take(self, path):
        text = path.read_text().strip()
        if text:
            self.seen.append(f"{path.relative_to(self.pci)} {text}")
            path.write_text("")
        return text

    def virtual_functions(self):
        dev = self.pci / "devices" / NIC
        wanted = (dev / "sriov_numvfs").read_text().strip()
        if wanted.isdigit() and int(wanted) != self.vfs:
            for number in range(self.vfs, int(wanted)):
                vf = self.pci / "devices" / f"0000:3b:10.{number}"
                vf.mkdir(exist_ok=True)
                (dev / f"virtfn{number}").symlink_to(vf)
            for number in range(int(wanted), self.vfs):
                (dev / f"virtfn{number}").unlink()
            self.vfs = int(wanted)


class Scripts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.fake = Sysfs(self.root)
        self.addCleanup(self.fake.kernel.join)
        self.addCleanup(self.fake.stop.set)
        self.state = self.root / "state"
        # What would reach the machine itself: noted, not done.
        for program in ("modprobe", "mount", "umount"):
            self.fake.write(f"bin/{program}", f'#!/bin/sh\necho "{program} $*" >>"{self.root}/done"\n')
            (self.root / "bin" / program).chmod(0o755)

    def script(self, name, *arguments):
        env = dict(os.environ, TOWPATH_SYSFS=self.root / "sys", TOWPATH_PROCFS=self.root / "proc",
                   TOWPATH_STATE=self.state, TOWPATH_HUGETLBFS=self.root / "huge",
                   PATH=f"{self.root / 'bin'}:{os.environ['PATH']}")  # fmt: skip
        done = subprocess.run([ROOT / "scripts" / name, *arguments], env=env, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def good(self, name, *arguments):
        status, said = self.script(name, *arguments)
        self.assertEqual(status, 0, said)
        return said

    def refused(self, why, name, *arguments):
        status, said = self.script(name, *arguments)
        self.assertEqual(status, 1, said)
        self.assertIn(why, said)

    def test_a_nic_goes_to_vfio_and_back_by_name_or_address(self):
        said = self.good("nic.sh", "bind", "eth1")
        self.assertEqual(self.fake.driver(NIC), "vfio-pci")
        self.assertIn(f'device = "{NIC}"', said)
        self.assertIn("eth1", self.good("nic.sh", "status"))
        self.good("nic.sh", "restore", NIC)
        self.assertEqual(self.fake.driver(NIC), "ixgbe")
        self.assertEqual((self.fake.pci / "devices" / NIC / "driver_override").read_text().strip(), "")
        self.assertEqual(self.fake.driver(UPLINK), "ixgbe")
        self.assertEqual(list(self.state.iterdir()), [])
        self.assertEqual(self.fake.seen, [
            f"drivers/ixgbe/unbind {NIC}", f"drivers_probe {NIC}",
            f"drivers/vfio-pci/unbind {NIC}", f"drivers_probe {NIC}",
        ])  # fmt: skip

    def test_a_dry_run_prints_the_same_and_changes_nothing(self):
        said = self.good("nic.sh", "bind", "eth1", "--dry-run")
        for line in (f"/{NIC}/driver_override", "driver/unbind", "drivers_probe"):
            self.assertIn(line, said)
        self.good("sriov.sh", "create", "eth1", "2", "-n")
        self.good("hugepages.sh", "reserve", "64", "-n")
        time.sleep(0.05)
        self.assertEqual((self.fake.driver(NIC), self.fake.vfs, self.fake.seen), ("ixgbe", 0, []))
        self.assertFalse(self.state.exists() or (self.root / "done").exists())

    def test_the_interface_of_the_default_route_is_refused(self):
        # By its own name, by its address, and though the route is on the VLAN above it.
        for nic in ("uplink", UPLINK):
            self.refused("uplink carries the default route", "nic.sh", "bind", nic)
        (self.fake.net / "uplink/device/sriov_totalvfs").write_text("4\n")
        self.refused("carries the default route", "sriov.sh", "create", "uplink", "2")
        self.fake.write("proc/net/route", ROUTES.replace("uplink.7 00000000", "uplink.7 000A0A0A"))
        self.good("nic.sh", "bind", "uplink", "-n")
        zeros = "0" * 32
        self.fake.write("proc/net/ipv6_route", f"{zeros} 00 {zeros} 00 {'f' * 32} 00000400 1 0 00000003 uplink.7\n")
        self.refused("uplink carries the default route", "nic.sh", "bind", "uplink")

    def test_a_device_that_cannot_go_to_vfio_is_named_with_what_mends_it(self):
        other = self.root / "sys/kernel/iommu_groups/12/devices" / UPLINK
        other.symlink_to(self.fake.pci / "devices" / UPLINK)
        self.refused(f"{UPLINK} (ixgbe) is in the same IOMMU group", "nic.sh", "bind", "eth1")
        (self.fake.pci / "devices" / NIC / "iommu_group").unlink()
        self.refused("intel_iommu=on", "nic.sh", "bind", "eth1")
        self.refused("is no PCI device", "nic.sh", "bind", "eth9")
        self.refused("was not bound by this script", "nic.sh", "restore", "eth1")
        self.assertEqual(self.fake.driver(NIC), "ixgbe")

    def test_virtual_functions_come_and_go(self):
        said = self.good("sriov.sh", "create", "eth1", "3")
        self.assertEqual(self.fake.vfs, 3)
        self.assertIn("0000:3b:10.2", said)
        self.assertIn("3 of 4", self.good("sriov.sh", "status"))
        self.refused("has VFs already", "sriov.sh", "create", "eth1", "2")
        self.good("sriov.sh", "remove", "eth1")
        self.assertEqual(self.fake.vfs, 0)
        self.refused("at most 4", "sriov.sh", "create", "eth1", "5")
        self.refused("expected: create NIC COUNT", "sriov.sh", "create", "eth1", "many")
        self.refused("no virtual functions", "sriov.sh", "create", "uplink", "1")

    def test_hugepages_are_reserved_mounted_and_given_back(self):
        pages = self.root / "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
        node = self.root / "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
        self.good("hugepages.sh", "reserve", "33")
        self.assertEqual(pages.read_text(), "17\n")
        self.good("hugepages.sh", "reserve", "128")
        self.good("hugepages.sh", "reserve", "20", "2M", "0")
        self.assertEqual((pages.read_text(), node.read_text()), ("64\n", "10\n"))
        self.assertIn("mount -t hugetlbfs", (self.root / "done").read_text())
        self.assertIn("64, ", self.good("hugepages.sh", "status"))
        self.good("hugepages.sh", "undo")
        self.assertEqual((pages.read_text(), node.read_text()), ("3\n", "3\n"))
        self.assertIn("umount", (self.root / "done").read_text())
        self.refused("nothing to undo", "hugepages.sh", "undo")
        self.refused("no pages of 1G", "hugepages.sh", "reserve", "1024", "1G")
        self.refused("reserve MIB", "hugepages.sh", "reserve", "lots")

    def test_each_explains_itself_and_knows_its_commands(self):
        for name in ("hugepages.sh", "nic.sh", "sriov.sh", "lab.sh"):
            said = self.good(name, "-h")
            self.assertIn(f"scripts/{name} ", said)
            self.assertIn("--dry-run", said)
            self.refused("no command nonsense", name, "nonsense")

    def test_a_production_build_can_be_looked_at_before_it_is_made(self):
        target = self.root / "target"
        env = dict(os.environ, CARGO_TARGET_DIR=str(target))
        command = [ROOT / "scripts/pgo.sh", "-n", "--features", "dpdk"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        steps = [line for line in done.stderr.splitlines() if "cargo build" in line or "train.py" in line]
        self.assertEqual(len(steps), 3, done.stderr)
        for step, words in zip(steps, ("-Cprofile-generate=", "train.py", "-Cprofile-use=")):
            self.assertIn(words, step)
            self.assertTrue("train.py" in step or "--features dpdk" in step, step)
        self.assertFalse(target.exists())

    def test_shellcheck_finds_nothing(self):
        if not shutil.which("shellcheck"):
            self.skipTest("apt-get install shellcheck")
        scripts = sorted((ROOT / "scripts").glob("*.sh"))
        done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout)


class Lab(unittest.TestCase):
    # A lab of the test's own: somebody may be playing in theirs.
    name = f"tpt{os.getpid()}"
    env = dict(os.environ, TOWPATH_LAB=name)

    def lab(self, *arguments):
        command = [ROOT / "scripts/lab.sh", *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def setUp(self):
        if os.geteuid() != 0 or not shutil.which("ethtool"):
            if CI:
                self.fail("the lab needs root, iproute2 and ethtool")
            self.skipTest("needs root and ethtool")

    def test_it_comes_up_carries_bytes_and_goes_without_a_trace(self):
        links = sorted(os.listdir("/sys/class/net"))
        self.addCleanup(self.lab, "down")
        status, said = self.lab("up", "2")
        self.assertEqual(status, 0, said)
        self.assertIn(f"exec {self.name}-client .cache/lab/bin/python examples/lab/client.py", said)
        self.assertEqual(self.lab("up")[0], 1)

        listen = "import socket; s = socket.create_server(('10.7.0.3', 50051)); print('up', flush=True); " \
                 "c, a = s.accept(); c.sendall(a[0].encode()); s.accept()"  # fmt: skip
        server = subprocess.Popen([ROOT / "scripts/lab.sh", "exec", f"{self.name}-server", sys.executable, "-c", listen],
                                  env=self.env, stdout=subprocess.PIPE)  # fmt: skip
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.kill)
        self.assertEqual(server.stdout.readline(), b"up\n")
        call = "import socket; print(socket.create_connection(('10.7.0.3', 50051), 5).recv(99).decode())"
        status, said = self.lab("exec", f"{self.name}-client", sys.executable, "-c", call)
        self.assertEqual((status, said.strip()), (0, "10.7.0.1"), "what the server saw")
        _, offloads = self.lab("exec", f"{self.name}-node", "ethtool", "-k", "fabric0")
        for name in ("tx-checksumming", "scatter-gather", "tcp-segmentation-offload", "generic-segmentation-offload"):
            self.assertIn(f"{name}: off", offloads)
        _, queues = self.lab("exec", f"{self.name}-node", "ls", "/sys/class/net/fabric0/queues")
        self.assertIn("rx-1", queues)
        self.assertIn(str(server.pid), self.lab("status")[1])

        self.assertEqual(self.lab("down")[0], 0)
        self.assertIsNotNone(server.wait(timeout=10), "what runs inside ends with it")
        self.assertEqual(self.lab("status")[0], 1)
        self.assertEqual(sorted(os.listdir("/sys/class/net")), links)


if __name__ == "__main__":
    unittest.main(verbosity=2)
