#!/usr/bin/env python3
"""Berth's registry beside others, on this machine's loopback, in one run with the same data; prints one table.

Beside it run Debian's docker-registry, distribution v3 (built from its Go module where Go is there) and, for blobs,
nginx: nginx with sendfile is about as fast as a server of files can be. The load comes from wrk, that of pushes from
this script, one after the other. Client and servers share the machine's cores, so that requests/s understate a fast
server: the server's CPU time per request is the figure to compare.

A benchmark and no test: it holds no figure against another.
"""
import argparse, hashlib, http.client, json, os, re, shutil, signal, socket, ssl, statistics, subprocess, sys, tempfile
import threading, time

DISTRIBUTION = "github.com/distribution/distribution/v3/cmd/registry@v3.1.1"
PACKAGES = {"wrk": "wrk", "nginx": "nginx-light", "docker-registry": "docker-registry", "openssl": "openssl"}
OCI = "application/vnd.oci.image.manifest.v1+json"
LUA = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def install():
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        # Their services are not wanted, only the programs.
        policy = "/usr/sbin/policy-rc.d"
        ours = not os.path.exists(policy)
        if ours:
            with open(policy, "w") as file:
                file.write("#!/bin/sh\nexit 101\n")
            os.chmod(policy, 0o755)
        try:
            subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *missing], check=True,
                           stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        finally:
            if ours:
                os.remove(policy)
    else:
        sys.exit(f"missing: {', '.join(missing)} (Debian: apt-get install {' '.join(missing)})")


def distribution():
    """The program of distribution v3; none where Go is not there."""
    if not shutil.which("go"):
        return None
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "berth-bench")
    program = os.path.join(cache, "bin", "registry")
    if not os.path.exists(program):
        print("building distribution v3, which takes some minutes the first time", file=sys.stderr)
        environment = {**os.environ, "GOBIN": os.path.dirname(program), "GOPATH": os.path.join(cache, "go"),
                       "GOFLAGS": "-modcacherw"}
        if subprocess.run(["go", "install", DISTRIBUTION], env=environment, cwd="/").returncode != 0:
            return None
    return program


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A process and its children, with what they cost."""

    def __init__(self, name, scratch, tls=None):
        self.name, self.tls, self.port = name, tls, free_port()
        self.folder = os.path.join(scratch, name.replace(" ", "-"))
        os.makedirs(self.folder)
        self.child, self.peak, self.watching = None, 0, False

    def start(self, command, environment=None):
        self.log = open(os.path.join(self.folder, "log"), "wb")
        self.child = subprocess.Popen(command, stdout=self.log, stderr=self.log, env={**os.environ, **(environment or {})})
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if self.child.poll() is not None:
                    break
                time.sleep(0.05)
        else:
            self.stop()
        if self.child is None or self.child.poll() is not None:
            sys.exit(f"{self.name} did not start: see its log\n" + open(self.log.name).read()[-2000:])
        time.sleep(1)
        self.idle = self.memory()
        self.watching = True
        threading.Thread(target=self.watch, daemon=True).start()

    def processes(self):
        found, left = [], [self.child.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            try:
                with open(f"/proc/{pid}/task/{pid}/children") as children:
                    left += map(int, children.read().split())
            except OSError:
                pass
        return found

    def cpu(self):
        """Seconds, user and system."""
        total = 0
        for pid in self.processes():
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
            except OSError:
                pass
        return total / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Anonymous memory, bytes."""
        total = 0
        for pid in self.processes():
            try:
                with open(f"/proc/{pid}/status") as status:
                    total += sum(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon:"))
            except OSError:
                pass
        return total

    def watch(self):
        while self.watching:
            self.peak = max(self.peak, self.memory())
            time.sleep(0.05)

    def stop(self):
        self.watching = False
        if self.child:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
            self.child = None

    def url(self, path):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{path}"

    def connect(self):
        if self.tls:
            context = ssl._create_unverified_context()
            return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=120)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def send(self, method, path, body=None, headers=None, connection=None):
        used = connection or self.connect()
        used.request(method, path, body, headers or {})
        answer = used.getresponse()
        text = answer.read()
        if answer.status >= 400:
            sys.exit(f"{self.name}: {method} {path}: {answer.status} {text[:300]}")
        location = answer.getheader("Location")
        if not connection:
            used.close()
        return re.sub(r"^https?://[^/]+", "", location) if location else None

    def push_blob(self, repository, data, digest):
        session = self.send("POST", f"/v2/{repository}/blobs/uploads/", b"")
        separator = "&" if "?" in session else "?"
        self.send("PUT", f"{session}{separator}digest={digest}", data, {"Content-Type": "application/octet-stream"})


def berth(scratch, program, tls=None):
    server = Server("Berth TLS" if tls else "Berth", scratch, tls)
    command = [program, "serve", "--root", os.path.join(server.folder, "root"), "--listen", f"127.0.0.1:{server.port}"]
    if tls:
        command += ["--tls-cert", tls[0], "--tls-key", tls[1]]
    server.start(command)
    return server


def go_registry(name, program, scratch):
    server = Server(name, scratch)
    config = os.path.join(server.folder, "config.json")
    document = {"version": "0.1", "log": {"level": "info", "accesslog": {"disabled": False}},
                "storage": {"filesystem": {"rootdirectory": os.path.join(server.folder, "root")},
                            "cache": {"blobdescriptor": "inmemory"}, "delete": {"enabled": True}},
                "http": {"addr": f"127.0.0.1:{server.port}"}}
    with open(config, "w") as file:
        json.dump(document, file)
    server.start([program, "serve", config], {"OTEL_TRACES_EXPORTER": "none"})
    return server


def nginx(scratch, files, tls=None):
    server = Server("nginx TLS" if tls else "nginx", scratch, tls)
    certificate = f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]};" if tls else ""
    config = os.path.join(server.folder, "nginx.conf")
    with open(config, "w") as file:
        file.write(f"""
daemon off; worker_processes auto; pid {server.folder}/pid; error_log {server.folder}/error.log;
{"user root;" if os.geteuid() == 0 else ""}
events {{ worker_connections 1024; }}
http {{
  access_log {server.folder}/access.log; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {server.folder}/b; proxy_temp_path {server.folder}/p; fastcgi_temp_path {server.folder}/f;
  uwsgi_temp_path {server.folder}/u; scgi_temp_path {server.folder}/s;
  open_file_cache max=100;
  server {{ listen 127.0.0.1:{server.port} {"ssl" if tls else ""}; root {files}; {certificate} }}
}}""")
    server.start(["nginx", "-c", config, "-e", os.path.join(server.folder, "error.log")])
    return server


def load(server, path, connections, seconds, lua):
    """wrk: requests/s, p99 in ms, server CPU in µs a request."""
    command = ["wrk", "-t", "1", "-c", str(connections), "--timeout", "30s", "-s", lua, "-H", f"Accept: {OCI}"]
    # Once in peace: what a server does only the first time is not what is measured.
    server.send("GET", path, headers={"Accept": OCI})
    subprocess.run([*command, "-d", "1s", server.url(path)], check=True, stdout=subprocess.DEVNULL)
    before = server.cpu()
    out = subprocess.run([*command, "-d", f"{seconds}s", server.url(path)], check=True, capture_output=True, text=True)
    after = server.cpu()
    requests, microseconds, p99, errors = map(int, re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", out.stdout).groups())
    if errors or not requests:
        print(f"{server.name} {path}: {errors} errors\n{out.stdout}", file=sys.stderr)
    return {"rate": requests / microseconds * 1e6, "p99": p99 / 1e3, "cpu": (after - before) / max(requests, 1) * 1e6}


def timed(server, times, action):
    """This script: the median of each in ms as well, one after the other."""
    action(-1)
    durations, before = [], server.cpu()
    for n in range(times):
        start = time.perf_counter()
        action(n)
        durations.append(time.perf_counter() - start)
    cpu = (server.cpu() - before) / times * 1e6
    p99 = sorted(durations)[min(len(durations) - 1, int(len(durations) * 0.99))]
    return {"rate": times / sum(durations), "median": statistics.median(durations) * 1e3, "p99": p99 * 1e3, "cpu": cpu}


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Image:
    """What every server gets to serve: an image of three layers with 101 tags."""

    def __init__(self):
        self.config = b'{"architecture":"amd64","os":"linux"}'
        self.blobs = {"4 KiB": os.urandom(4 << 10), "1 MiB": os.urandom(1 << 20), "64 MiB": os.urandom(64 << 20)}
        layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(data), "size": len(data)}
                  for data in self.blobs.values()]
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(self.config),
                  "size": len(self.config)}
        self.document = {"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": layers}

    def manifest(self, n):
        return json.dumps({**self.document, "annotations": {"n": str(n)}}).encode()

    def push(self, server):
        for data in [self.config, *self.blobs.values()]:
            server.push_blob("bench/image", data, sha256(data))
        for n in range(101):
            server.send("PUT", f"/v2/bench/image/manifests/v{n}", self.manifest(0), {"Content-Type": OCI})


def registry(server, image, seconds, lua):
    image.push(server)
    rows, base = {}, "/v2/bench/image"
    rows["manifest GET by tag"] = load(server, f"{base}/manifests/v50", 32, seconds, lua)
    rows["tags list (101 tags)"] = load(server, f"{base}/tags/list", 32, seconds, lua)
    for size, data in image.blobs.items():
        connections = 4 if size == "64 MiB" else 32
        rows[f"blob GET {size}"] = load(server, f"{base}/blobs/{sha256(data)}", connections, seconds, lua)
    large = [os.urandom(64 << 20) for _ in range(6)]
    digests = [sha256(data) for data in large]
    rows["push 64 MiB (one PUT)"] = timed(
        server, 5, lambda n: server.push_blob("bench/push", large[n], digests[n]))
    documents = [image.manifest(n) for n in range(1, 203)]
    rows["PUT manifest"] = timed(server, 200, lambda n: server.send(
        "PUT", f"{base}/manifests/p{n + 1}", documents[n], {"Content-Type": OCI}))
    small = [os.urandom(4 << 10) for _ in range(201)]
    digests = [sha256(data) for data in small]
    rows["push 4 KiB blob"] = timed(
        server, 200, lambda n: server.push_blob("bench/push", small[n], digests[n]))
    return rows


def crowd(server):
    """The most memory while 100 clients pull and 50 push 100 MiB each."""
    data = os.urandom(100 << 20)
    digest = sha256(data)
    server.push_blob("bench/crowd", data, digest)

    def pull():
        connection = server.connect()
        connection.request("GET", f"/v2/bench/crowd/blobs/{digest}")
        answer, received = connection.getresponse(), 0
        while piece := answer.read(1 << 16):
            received += len(piece)
        if received != len(data):
            print(f"{server.name}: a pull got {received} bytes of {len(data)}", file=sys.stderr)
        connection.close()

    clients = [threading.Thread(target=pull) for _ in range(100)]
    clients += [threading.Thread(target=server.push_blob, args=("bench/pushed", data, digest)) for _ in range(50)]
    server.peak = 0
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return server.peak


def files(server, image, seconds, lua):
    return {f"blob GET {size}": load(server, f"/{size.replace(' ', '')}", 4 if size == "64 MiB" else 32, seconds, lua)
            for size in image.blobs}


def sync_time(scratch):
    """Milliseconds: a small file written and synced, the median of 50."""
    durations = []
    for n in range(50):
        start = time.perf_counter()
        with open(os.path.join(scratch, "sync"), "wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        durations.append(time.perf_counter() - start)
    return statistics.median(durations) * 1e3


def short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(results):
    for title, tls in (("plain HTTP", False), ("TLS", True)):
        servers = [(server, rows) for server, rows in results if bool(server.tls) == tls]
        if not servers:
            continue
        names = []
        for _, rows in servers:
            names += [name for name in rows if name not in names]
        lines = [[title, *(server.name for server, _ in servers)]]
        for name in names:
            line = [name]
            for _, rows in servers:
                row = rows.get(name)
                if not row:
                    line.append("–")
                elif "median" in row:
                    line.append(f"{short(row['median'])} ms, p99 {short(row['p99'])} ms, {short(row['cpu'])} µs")
                else:
                    line.append(f"{short(row['rate'])}/s, p99 {short(row['p99'])} ms, {short(row['cpu'])} µs")
            lines.append(line)
        lines.append(["memory idle", *(f"{server.idle / 1e6:.1f} MB" for server, _ in servers)])
        lines.append(["memory peak", *(f"{server.most / 1e6:.1f} MB" for server, _ in servers)])
        crowded = (f"{server.crowded / 1e6:.1f} MB" if server.crowded else "–" for server, _ in servers)
        lines.append(["memory, 100 pull and 50 push 100 MiB", *crowded])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        for number, line in enumerate(lines):
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
            if number == 0:
                print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the berth-registry to measure")
    parser.add_argument("--seconds", type=int, default=5, help="how long each load lasts (5)")
    parser.add_argument("--only", default="", help="servers, by name: berth,nginx,docker-registry,distribution (all)")
    parser.add_argument("--no-tls", action="store_true", help="plain HTTP only")
    arguments = parser.parse_args()
    install()
    wanted = lambda name: not arguments.only or name in arguments.only.split(",")
    program = os.path.abspath(arguments.program)
    scratch = tempfile.mkdtemp(prefix="berth-bench-")
    servers, results = [], []
    try:
        lua = os.path.join(scratch, "report.lua")
        with open(lua, "w") as file:
            file.write(LUA)
        image = Image()
        web = os.path.join(scratch, "web")
        os.makedirs(web)
        for size, data in image.blobs.items():
            with open(os.path.join(web, size.replace(" ", "")), "wb") as file:
                file.write(data)
        tls = (os.path.join(scratch, "tls.crt"), os.path.join(scratch, "tls.key"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-out", tls[0], "-keyout", tls[1]], check=True, stderr=subprocess.DEVNULL)
        plans = []
        if wanted("berth"):
            plans.append((registry, lambda: berth(scratch, program)))
        if wanted("docker-registry"):
            plans.append((registry, lambda: go_registry("docker-registry", "docker-registry", scratch)))
        if wanted("distribution") and (built := distribution()):
            plans.append((registry, lambda: go_registry("distribution v3", built, scratch)))
        if wanted("nginx"):
            plans.append((files, lambda: nginx(scratch, web)))
        if not arguments.no_tls:
            if wanted("berth"):
                plans.append((registry, lambda: berth(scratch, program, tls)))
            if wanted("nginx"):
                plans.append((files, lambda: nginx(scratch, web, tls)))
        for measure, start in plans:
            # One at a time, so that none takes another's time.
            server = start()
            servers.append(server)
            print(f"measuring {server.name}", file=sys.stderr)
            results.append((server, measure(server, image, arguments.seconds, lua)))
            server.most = server.peak
            server.crowded = crowd(server) if measure is registry else None
            # Its data stays until all have been measured: some file systems are slow for a while after much is removed.
            server.stop()
        print(f"{os.cpu_count()} cores shared by client and server; each cell: requests/s (pushes: median time, one "
              f"after the other), p99, server CPU a request.\nA small file written and synced here: "
              f"{sync_time(scratch):.2f} ms. Memory is anonymous memory.\n")
        table(results)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
