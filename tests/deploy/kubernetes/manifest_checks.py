"""What no schema can say of a set of manifests: that its parts fit each other and the programs.

`faults(manifests, flags)` takes the rendered manifests of one cluster and, by program, the names of its flags.
"""
import json
import re

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
PORT_NAME = re.compile(r"(?=.{1,15}\Z)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*\Z")
CLUSTER_WIDE = {"Namespace", "ResourceFlavor", "ClusterQueue"}
# Made outside: by deploy/credentials or cert-manager; by the README's commands.
SECRETS = {"lasp-server-tls", "lasp-agent-tls", "lasp-tokens"}
CONFIG_MAPS = {"example-corpus"}


def quantity(text):
    """A Kubernetes quantity as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text)).groups()
    units = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    return float(number) * units[unit]


def seconds(duration):
    """An absl duration such as 9m or 1h30m."""
    return sum(float(n) * {"h": 3600, "m": 60, "s": 1}[u] for n, u in re.findall(r"([0-9.]+)([hms])", duration))


def matches(selector, labels):
    assert not (selector or {}).get("matchExpressions"), "matchExpressions: not looked at here"
    return all(labels.get(key) == value for key, value in (selector or {}).get("matchLabels", {}).items())


class Checker:
    def __init__(self, manifests, flags):
        self.manifests = manifests
        self.flags = flags
        self.found = []

    def fault(self, manifest, text):
        self.found.append(f"{manifest['kind']} {manifest['metadata']['name']}: {text}")

    def kind(self, *kinds):
        return [m for m in self.manifests if m["kind"] in kinds]

    def workloads(self):
        return self.kind("StatefulSet", "Deployment", "DaemonSet")

    def pods_of(self, selector):
        return [w for w in self.workloads() if matches(selector, w["spec"]["template"]["metadata"]["labels"])]

    @staticmethod
    def containers(workload):
        return workload["spec"]["template"]["spec"]["containers"]

    def ports(self, workload):
        return {p["name"]: p["containerPort"] for c in self.containers(workload) for p in c.get("ports", [])}

    # ---- names ---------------------------------------------------------------------------------------

    def check_names(self):
        seen = set()
        for m in self.manifests:
            name = m["metadata"]["name"]
            if not LABEL.match(name):
                self.fault(m, "its name is no DNS label")
            identity = (m["apiVersion"].split("/")[0], m["kind"], name)
            if identity in seen:
                self.fault(m, "is there twice")
            seen.add(identity)
            if m["kind"] not in CLUSTER_WIDE and m["metadata"].get("namespace") != "lasp":
                self.fault(m, "is not in the namespace lasp")
        for w in self.workloads():
            # A pod's name is its host name.
            if not LABEL.match(f"{w['metadata']['name']}-{w['spec'].get('replicas', 1)}"):
                self.fault(w, "its pods' names are no DNS labels")
            for name in self.ports(w):
                if not PORT_NAME.match(name):
                    self.fault(w, f"port name {name} is not allowed")
            for key in w["spec"]["template"]["metadata"]["labels"]:
                if not re.match(r"([a-z0-9.-]+/)?[A-Za-z0-9._-]+\Z", key):
                    self.fault(w, f"label {key} is not allowed")

    # ---- selectors -----------------------------------------------------------------------------------

    def check_selectors(self):
        for w in self.workloads():
            if not matches(w["spec"]["selector"], w["spec"]["template"]["metadata"]["labels"]):
                self.fault(w, "its selector does not match its pods' labels")
            governing = [s for s in self.kind("Service") if s["metadata"]["name"] == w["spec"].get("serviceName")]
            if w["kind"] == "StatefulSet" and (not governing or governing[0]["spec"].get("clusterIP") != "None"):
                self.fault(w, f"serviceName {w['spec'].get('serviceName')} is no headless service")
        for s in self.kind("Service"):
            pods = self.pods_of({"matchLabels": s["spec"]["selector"]})
            if len(pods) != 1:
                self.fault(s, f"its selector matches {len(pods)} workloads")
            for port in s["spec"].get("ports", []):
                if not all(port["targetPort"] in (*self.ports(w), *self.ports(w).values()) for w in pods):
                    self.fault(s, f"no container has the port {port['targetPort']}")
        for m in self.kind("PodDisruptionBudget"):
            if len(self.pods_of(m["spec"]["selector"])) != 1:
                self.fault(m, "its selector does not match one workload")
        for m in self.kind("PodMonitor"):
            pods = self.pods_of(m["spec"]["selector"])
            if not pods:
                self.fault(m, "its selector matches no pod")
            for endpoint in m["spec"]["podMetricsEndpoints"]:
                if not all(endpoint["port"] in self.ports(w) for w in pods):
                    self.fault(m, f"no container port is named {endpoint['port']}")
        for m in self.kind("ServiceMonitor"):
            services = [s for s in self.kind("Service") if matches(m["spec"]["selector"], s["metadata"].get("labels", {}))]
            if len(services) != 1:
                self.fault(m, f"its selector matches {len(services)} services")
            for endpoint in m["spec"]["endpoints"]:
                if not all(endpoint["port"] in [p["name"] for p in s["spec"].get("ports", [])] for s in services):
                    self.fault(m, f"no service port is named {endpoint['port']}")

    # ---- network -------------------------------------------------------------------------------------

    def check_network(self):
        policies = self.kind("NetworkPolicy")
        denies = [p["spec"] for p in policies if not p["spec"]["podSelector"] and
                  not p["spec"].get("ingress") and not p["spec"].get("egress")]
        if not any({"Ingress", "Egress"} <= set(spec["policyTypes"]) for spec in denies):
            self.found.append("no NetworkPolicy denies by default")
        monitored = bool(self.kind("PodMonitor", "ServiceMonitor"))
        for w in self.workloads():
            labels, ports = w["spec"]["template"]["metadata"]["labels"], self.ports(w)
            admitted = set()
            for p in policies:
                if not matches(p["spec"]["podSelector"], labels):
                    continue
                for rule in p["spec"].get("ingress", []):
                    for port in rule.get("ports", []):
                        if port["port"] not in (*ports, *ports.values()):
                            self.fault(p, f"no container has the port {port['port']}")
                        admitted.add(port["port"])
            # The kubelet's probes need no rule; Prometheus' is with the monitors.
            for name in set(ports) - {"health"} - (set() if monitored else {"metrics"}):
                if name not in admitted and ports[name] not in admitted:
                    self.fault(w, f"no NetworkPolicy admits anyone to the port {name}")
        for p in policies:
            if p["spec"]["podSelector"] and not self.pods_of(p["spec"]["podSelector"]):
                self.fault(p, "its selector matches no pod")
            for rule in p["spec"].get("egress", []):
                for peer in rule.get("to", []):
                    targets = self.pods_of(peer["podSelector"]) if "podSelector" in peer else None
                    if targets == []:
                        self.fault(p, "it lets out to pods that there are not")
                    for port in rule.get("ports", []):
                        if targets and any(port["port"] not in (*self.ports(w), *self.ports(w).values()) for w in targets):
                            self.fault(p, f"no pod it lets out to has the port {port['port']}")

    # ---- volumes -------------------------------------------------------------------------------------

    def check_volumes(self):
        claims = {m["metadata"]["name"] for m in self.kind("PersistentVolumeClaim")}
        maps = {m["metadata"]["name"] for m in self.kind("ConfigMap")} | CONFIG_MAPS
        for w in self.workloads():
            pod = w["spec"]["template"]["spec"]
            volumes = {v["name"]: v for v in pod.get("volumes", [])}
            templates = {t["metadata"]["name"] for t in w["spec"].get("volumeClaimTemplates", [])}
            mounted = set()
            for c in pod["containers"]:
                paths = [m["mountPath"] for m in c.get("volumeMounts", [])]
                if len(set(paths)) != len(paths):
                    self.fault(w, "two volumes are mounted at one path")
                for m in c.get("volumeMounts", []):
                    mounted.add(m["name"])
                    if m["name"] not in volumes and m["name"] not in templates:
                        self.fault(w, f"no volume is named {m['name']}")
                    elif m["mountPath"] == "/data" and not m.get("readOnly"):
                        self.fault(w, "the data is mounted writable")
            for name in (set(volumes) | templates) - mounted:
                self.fault(w, f"nothing mounts the volume {name}")
            for name, v in volumes.items():
                if len(set(v) - {"name"}) != 1:
                    self.fault(w, f"volume {name} is not of one kind")
                if "persistentVolumeClaim" in v and v["persistentVolumeClaim"]["claimName"] not in claims:
                    self.fault(w, f"no claim is named {v['persistentVolumeClaim']['claimName']}")
                if "configMap" in v and v["configMap"]["name"] not in maps:
                    self.fault(w, f"no config map is named {v['configMap']['name']}")
                if "secret" in v and v["secret"]["secretName"] not in SECRETS:
                    self.fault(w, f"nobody makes the secret {v['secret']['secretName']}")

    # ---- pods ----------------------------------------------------------------------------------------

    def check_pods(self):
        namespace = self.kind("Namespace")[0]
        level = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        accounts = {a["metadata"]["name"]: a for a in self.kind("ServiceAccount")}
        for a in accounts.values():
            if a.get("automountServiceAccountToken") is not False:
                self.fault(a, "it gives pods a token")
        for w in self.workloads():
            pod = w["spec"]["template"]["spec"]
            if pod.get("serviceAccountName") not in accounts or pod.get("automountServiceAccountToken") is not False:
                self.fault(w, "has no service account of its own without a token")
            context = pod.get("securityContext", {})
            if (context.get("runAsNonRoot"), context.get("runAsUser"), context.get("seccompProfile")) != (
                    True, 65532, {"type": "RuntimeDefault"}):
                self.fault(w, "does not run as 65532 under the default seccomp profile")
            memory = sum(quantity(v["emptyDir"]["sizeLimit"]) for v in pod["volumes"]
                         if v.get("emptyDir", {}).get("medium") == "Memory")
            for c in pod["containers"]:
                own, capabilities = c.get("securityContext", {}), c.get("securityContext", {}).get("capabilities", {})
                if own.get("allowPrivilegeEscalation") is not False or own.get("readOnlyRootFilesystem") is not True or \
                        capabilities.get("drop") != ["ALL"] or (capabilities.get("add") and level != "privileged"):
                    self.fault(w, f"container {c['name']} has more than a restricted security context")
                resources = c.get("resources", {})
                if not resources.get("limits") or resources.get("requests") != resources["limits"] or \
                        not {"cpu", "memory"} <= set(resources["limits"]):
                    self.fault(w, f"container {c['name']} is not of quality of service Guaranteed")
                elif memory > quantity(resources["limits"]["memory"]) / 2:
                    self.fault(w, "its volumes in memory may take more than half of its memory")
                elif "nvidia.com/gpu" in resources["limits"] and memory < quantity(resources["limits"]["memory"]) / 2:
                    self.fault(w, "its ranks may leave more state than its volumes in memory hold")
                self.check_probes(w, c)
                self.check_arguments(w, c)

    def check_probes(self, workload, container):
        ports = {p["containerPort"] for p in container.get("ports", []) if p["name"] == "health"}
        for probe, service in (("startupProbe", "liveness"), ("livenessProbe", "liveness"), ("readinessProbe", "readiness")):
            asked = container.get(probe, {}).get("grpc", {})
            if asked.get("port") not in ports or asked.get("service") != service:
                self.fault(workload, f"{probe} does not ask for {service} on the health port")
        start = container.get("startupProbe", {})
        # It reads its store through before it serves.
        if container["name"] == "lasp-server" and start.get("periodSeconds", 10) * start.get("failureThreshold", 3) < 3600:
            self.fault(workload, "is killed while it opens a large store")

    def check_arguments(self, workload, container):
        """The flags exist, listen on the ports declared, and name folders that are mounted."""
        values = {}
        for argument in container["args"]:
            name, _, value = argument.removeprefix("--").partition("=")
            if name in values:
                self.fault(workload, f"--{name} is given twice")
            values[name] = value
            if name not in self.flags[container["name"]]:
                self.fault(workload, f"{container['name']} has no flag --{name}")
        listened = {int(v.rpartition(":")[2]) for k, v in values.items() if k.endswith("_address") and ":" in v}
        if listened != {p["containerPort"] for p in container["ports"]}:
            self.fault(workload, f"listens on {sorted(listened)}, which are not its container's ports")
        given = {e["name"] for e in container.get("env", [])}
        for name in re.findall(r"\$\((\w+)\)", " ".join(values.values())):
            if name not in given:
                self.fault(workload, f"$({name}) is not in its environment")
        mounts = [m["mountPath"] for m in container.get("volumeMounts", [])]
        for name, value in values.items():
            if value.startswith("/") and not any(value == m or value.startswith(m + "/") for m in mounts):
                self.fault(workload, f"--{name}={value} is on no volume")
        pod = workload["spec"]["template"]["spec"]
        if seconds(values.get("drain_timeout", "0s")) + 30 > pod.get("terminationGracePeriodSeconds", 30):
            self.fault(workload, "is killed before its drain timeout")
        if "server" in values:
            host, _, port = values["server"].partition(":")
            services = {f"{s['metadata']['name']}.{s['metadata']['namespace']}.svc": s for s in self.kind("Service")}
            offered = [p["port"] for p in services.get(host, {"spec": {}})["spec"].get("ports", [])]
            if int(port) not in offered:
                self.fault(workload, f"no service answers at {values['server']}")

    # ---- other projects' kinds -----------------------------------------------------------------------

    def check_certificates(self):
        issuers = {i["metadata"]["name"] for i in self.kind("Issuer")}
        names = {}
        for c in self.kind("Certificate"):
            names[c["spec"]["secretName"]] = c["spec"].get("dnsNames", [])
            if c["spec"]["issuerRef"]["name"] not in issuers:
                self.fault(c, f"no issuer is named {c['spec']['issuerRef']['name']}")
        for i in self.kind("Issuer"):
            if "ca" in i["spec"] and i["spec"]["ca"]["secretName"] not in names:
                self.fault(i, f"no certificate makes the secret {i['spec']['ca']['secretName']}")
        for w in self.workloads():
            if not names or w["metadata"]["name"] != "lasp-agent":
                continue
            for index in range(w["spec"]["replicas"]):
                if f"lasp-agent-{index}" not in names.get("lasp-agent-tls", []):
                    self.fault(w, f"lasp-agent-{index} is not in the agents' certificate")
            host = next(a for a in self.containers(w)[0]["args"] if a.startswith("--server=")).split("=")[1].split(":")[0]
            if host not in names.get("lasp-server-tls", []):
                self.fault(w, f"{host} is not in the server's certificate")

    def check_queues(self):
        queues = {q["metadata"]["name"]: q for q in self.kind("LocalQueue")}
        clusters = {q["metadata"]["name"]: q for q in self.kind("ClusterQueue")}
        flavors = {f["metadata"]["name"] for f in self.kind("ResourceFlavor")}
        for q in queues.values():
            if q["spec"]["clusterQueue"] not in clusters:
                self.fault(q, f"no cluster queue is named {q['spec']['clusterQueue']}")
        for q in clusters.values():
            for group in q["spec"]["resourceGroups"]:
                for flavor in group["flavors"]:
                    if flavor["name"] not in flavors:
                        self.fault(q, f"no flavor is named {flavor['name']}")
                    if sorted(r["name"] for r in flavor["resources"]) != sorted(group["coveredResources"]):
                        self.fault(q, f"flavor {flavor['name']} does not cover the resources")
        for w in self.workloads():
            queue = w["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
            if queue is not None and queue not in queues:
                self.fault(w, f"no local queue is named {queue}")

    def check_dashboards(self):
        for m in self.kind("ConfigMap"):
            if m["metadata"].get("labels", {}).get("grafana_dashboard") == "1":
                for name, text in m["data"].items():
                    try:
                        json.loads(text)
                    except ValueError:
                        self.fault(m, f"{name} is no JSON")
                if sum(map(len, m["data"].values())) > 250_000:
                    self.fault(m, "is larger than kubectl apply can annotate")


def faults(manifests, flags):
    checker = Checker(manifests, flags)
    for name in dir(checker):
        if name.startswith("check_") and name not in ("check_probes", "check_arguments"):
            getattr(checker, name)()
    return checker.found
