#!/usr/bin/env python3
"""10,000 rules of 50 shapes: how long until they are checked and a node is ready, and bytes a rule.

    cargo build --release --bin towpath && python3 benches/many_rules.py [--rules N] [--shapes N]

A shape is a chain of one to four elements in its own order; every rule has arguments of its own.
"""

import argparse
import os
import random
import re
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOWPATH = os.environ.get("TOWPATH_BIN", os.path.join(ROOT, "target/release/towpath"))

LINKS = {
    "LoadBalancing": lambda r: f"LoadBalancing(policy: {r.choice(['p2c', 'round_robin', 'least_request', 'random'])})",
    "Logging": lambda r: "Logging",
    "Compression": lambda r: f"Compression(algorithm: {r.choice(['gzip', 'deflate'])}, min: {r.randint(1, 64)}KiB)",
    "FaultInjection": lambda r: f"FaultInjection({r.randint(1, 999) / 10000}, status: UNAVAILABLE, delay: {r.randint(1, 50)}ms)",
    "Tag": lambda r: f'Tag("x-rule-{r.randint(0, 10**9)}")',
    "Deny": lambda r: f'Deny(by: call.metadata["x-{r.choice("abcdefgh")}"], who: ["{r.randint(0, 10**9)}", "{r.randint(0, 10**9)}"])',
}

ELEMENTS = """
element Tag(value: string) { request { call.metadata["x-tag"] = value } }
element Deny(by: call => string?, who: list<string>) {
    request { if by in who { reject(PERMISSION_DENIED, "not you") } }
}
"""


def program(rules, shapes, services, seed):
    r = random.Random(seed)
    chains = set()
    while len(chains) < shapes:
        chains.add(tuple(r.sample(sorted(LINKS), r.randint(1, 4))))
    chains = sorted(chains)
    lines = [ELEMENTS, 'service frontend { from: ["listen:pods"] }']
    for i in range(services):
        lines.append(f'service s{i} {{ endpoints: ["127.0.0.1:{20000 + i % 1000}"] }}')
    for i in range(rules):
        chain = chains[i % len(chains)]
        links = " - ".join(LINKS[name](r) for name in chain)
        lines.append(f"frontend -> s{i % services}.shop.v{i // services}.Catalog/Method{i}: {links}")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=10_000)
    parser.add_argument("--shapes", type=int, default=50)
    parser.add_argument("--services", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "many.adn")
        with open(path, "w") as out:
            out.write(program(args.rules, args.shapes, args.services, 7))
        begun = time.monotonic()
        done = subprocess.run([TOWPATH, "check", path], capture_output=True, text=True, timeout=120)
        print(f"check: {time.monotonic() - begun:.2f} s, exit {done.returncode}: {done.stdout.strip() or done.stderr.strip()[:500]}")
        config = os.path.join(folder, "node.toml")
        with open(config, "w") as out:
            out.write('[[listen]]\nname = "pods"\naddress = "127.0.0.1:0"\n[admin]\naddress = "127.0.0.1:0"\n'
                      f'socket = "{folder}/admin.sock"\n[shards]\ncores = [0]\n')
        begun = time.monotonic()
        node = subprocess.Popen([TOWPATH, "run", path, "--config", config], stderr=subprocess.PIPE, text=True)
        try:
            for line in node.stderr:
                if "ready" in line:
                    print(f"ready: {time.monotonic() - begun:.2f} s: {line.strip()}")
                    break
            else:
                raise SystemExit("the node did not become ready")
            status = open(f"/proc/{node.pid}/status").read()
            resident = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024
            print(f"resident: {resident / 2**20:.1f} MiB, {resident / args.rules:.0f} B a rule, all included")
        finally:
            node.terminate()
            node.wait(10)


if __name__ == "__main__":
    main()
