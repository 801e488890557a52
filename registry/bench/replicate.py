#!/usr/bin/env python3
"""`berth-registry replicate` beside `skopeo sync` and `crane copy`: the same images between the same two registries on
this machine's loopback, in one run; prints one table.

Each tool copies to a target of its own that is empty, then again and again with nothing changed; all of that some rounds long,
one tool after the other in each. Medians are shown. Both registries are Berth's, so that only the tools differ; `--peer-target` has docker-registry as target instead, where stamps and states don't help.

A benchmark and no test: it holds no figure against another.
"""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile, threading, time

from bench import OCI, berth, go_registry, sha256

TAGS = 10_000
AGAIN = 5


def manifest(config, layers, note):
    descriptor = lambda kind, data: {"mediaType": f"application/vnd.oci.image.{kind}", "digest": sha256(data), "size": len(data)}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": descriptor("config.v1+json", config),
                       "layers": [descriptor("layer.v1.tar", data) for data in layers],
                       "annotations": {"note": note}}).encode()


def images(server, number, layers, size):
    """So many images of layers that no other one has; returns their bytes."""
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    server.push_blob("bench/images", config, sha256(config))
    for image in range(number):
        contents = [os.urandom(size) for _ in range(layers)]
        for data in contents:
            server.push_blob("bench/images", data, sha256(data))
            # Once in peace: what the source does only the first time is not what is measured.
            server.send("GET", f"/v2/bench/images/blobs/{sha256(data)}")
        server.send("PUT", f"/v2/bench/images/manifests/v{image}", manifest(config, contents, str(image)), {"Content-Type": OCI})
    return number * layers * size


def tags(server, number):
    config = b'{"architecture":"amd64","os":"linux"}'
    server.push_blob("bench/tags", config, sha256(config))
    connection = server.connect()
    for tag in range(number):
        server.send("PUT", f"/v2/bench/tags/manifests/t{tag}", manifest(config, [config], str(tag)), {"Content-Type": OCI},
                    connection)
    connection.close()


def run(command):
    """Seconds, and the most anonymous memory."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak, ended = [0], threading.Event()

    def watch():
        while not ended.wait(0.01):
            try:
                with open(f"/proc/{child.pid}/status") as status:
                    now = sum(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon:"))
                    peak[0] = max(peak[0], now)
            except OSError:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = child.communicate()
    took = time.perf_counter() - began
    ended.set()
    watcher.join()
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}:\n{said[-2000:]}")
    return took, peak[0]


def tools(program, source, target):
    at = lambda server: f"127.0.0.1:{server.port}"
    yield "berth-registry replicate", [program, "replicate", f"http://{at(source)}", f"http://{at(target)}", "--repository", "bench/images"]
    if shutil.which("skopeo"):
        yield "skopeo sync", ["skopeo", "--insecure-policy", "sync", "--src", "docker", "--dest", "docker", "--src-tls-verify=false",
                              "--dest-tls-verify=false", "--preserve-digests", f"{at(source)}/bench/images", f"{at(target)}/bench"]
    crane = shutil.which("crane") or os.environ.get("CRANE")
    if crane:
        yield "crane copy", [crane, "copy", "--insecure", "--all-tags", f"{at(source)}/bench/images", f"{at(target)}/bench/images"]


def verify(target, number):
    listed = target.connect()
    listed.request("GET", "/v2/bench/images/tags/list")
    found = len(json.loads(listed.getresponse().read())["tags"])
    listed.close()
    if found != number:
        sys.exit(f"{target.name} has {found} images of {number}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="berth-registry")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--size", type=int, default=4 << 20, help="bytes of a layer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-target", action="store_true", help="docker-registry as target")
    arguments = parser.parse_args()
    program = os.path.abspath(arguments.program)
    scratch = tempfile.mkdtemp(prefix="berth-bench-", dir="/var/tmp")
    running = []
    try:
        source = berth(scratch, program)
        running.append(source)
        print(f"{arguments.images} images of {arguments.layers} layers of {arguments.size >> 10} KiB", file=sys.stderr)
        images(source, arguments.images, arguments.layers, arguments.size)
        first, again, memory = {}, {}, {}
        for round in range(arguments.rounds):
            for number, (name, _) in enumerate(tools(program, source, source)):
                folder = os.path.join(scratch, f"{round}-{number}")
                os.makedirs(folder)
                target = go_registry("target", "docker-registry", folder) if arguments.peer_target else berth(folder, program)
                running.append(target)
                command = dict(tools(program, source, target))[name]
                runs = [run(command) for _ in range(1 + AGAIN)]
                verify(target, arguments.images)
                first.setdefault(name, []).append(runs[0][0])
                again.setdefault(name, []).extend(took for took, _ in runs[1:])
                memory[name] = max(memory.get(name, 0), *(peak for _, peak in runs))
                print(f"  {name}: {runs[0][0]:.2f} s, again {1000 * runs[1][0]:.0f} ms", file=sys.stderr)
                running.remove(target)
                target.stop()
                shutil.rmtree(folder)
        folder = os.path.join(scratch, "tags")
        os.makedirs(folder)
        target = go_registry("target", "docker-registry", folder) if arguments.peer_target else berth(folder, program)
        running.append(target)
        print(f"{TAGS} tags", file=sys.stderr)
        tags(source, TAGS)
        command = [program, "replicate", source.url(""), target.url(""), "--repository", "bench/tags"]
        copied, compared = run(command), run(command)
        print(f"\n{'':28}{'first copy':>12}{'again':>12}{'memory':>10}")
        for name in first:
            print(f"{name:28}{statistics.median(first[name]):>10.2f} s{1000 * statistics.median(again[name]):>9.1f} ms{memory[name] / 1e6:>7.1f} MB")
        print(f"{TAGS} tags: copied in {copied[0]:.1f} s, compared in {compared[0]:.2f} s, {max(copied[1], compared[1]) / 1e6:.1f} MB")
    finally:
        for server in running:
            server.stop()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
