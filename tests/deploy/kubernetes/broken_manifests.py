"""Faults that the tests of the manifests must find: BROKEN, by name: what makes it, and words of the answer."""


def of(manifests, kind, name):
    return next(m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)


def container(manifests, name):
    return of(manifests, "StatefulSet", name)["spec"]["template"]["spec"]["containers"][0]


def _unknown_field(all_):
    container(all_, "lasp-agent")["imagePullPolice"] = "Always"


def _wrong_type(all_):
    of(all_, "StatefulSet", "lasp-agent")["spec"]["replicas"] = "two"


def _missing_field(all_):
    del of(all_, "StatefulSet", "lasp-coordinator")["spec"]["selector"]


def _bad_quantity(all_):
    container(all_, "lasp-agent")["ports"][0]["containerPort"] = 7080.5


def _selector(all_):
    of(all_, "StatefulSet", "lasp-agent")["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] = "other"


def _mount(all_):
    container(all_, "lasp-coordinator")["volumeMounts"].append({"name": "nowhere", "mountPath": "/nowhere"})


def _service_port(all_):
    of(all_, "Service", "lasp-api")["spec"]["ports"][0]["targetPort"] = "grpc"


def _probe_port(all_):
    container(all_, "lasp-coordinator")["livenessProbe"]["grpc"]["port"] = 7070


def _short_start(all_):
    container(all_, "lasp-coordinator")["startupProbe"]["failureThreshold"] = 150


def _small_shm(all_):
    volumes = of(all_, "StatefulSet", "lasp-agent")["spec"]["template"]["spec"]["volumes"]
    next(v for v in volumes if v["name"] == "shm")["emptyDir"]["sizeLimit"] = "16Gi"


def _monitor_port(all_):
    of(all_, "PodMonitor", "lasp-agent")["spec"]["podMetricsEndpoints"][0]["port"] = "http"


def _monitor_field(all_):
    of(all_, "ServiceMonitor", "lasp-coordinator")["spec"]["endpoints"][0]["intervall"] = "5s"


def _name(all_):
    of(all_, "ServiceAccount", "lasp-agent")["metadata"]["name"] = "lasp_agent"


def _no_deny(all_):
    all_.remove(of(all_, "NetworkPolicy", "default-deny"))


def _not_admitted(all_):
    all_.remove(of(all_, "NetworkPolicy", "coordinator-metrics"))


def _root(all_):
    of(all_, "StatefulSet", "lasp-agent")["spec"]["template"]["spec"]["securityContext"]["runAsUser"] = 0


def _writable_root(all_):
    container(all_, "lasp-agent")["securityContext"]["readOnlyRootFilesystem"] = False


def _burstable(all_):
    container(all_, "lasp-agent")["resources"]["requests"]["cpu"] = "1"


def _flag(all_):
    container(all_, "lasp-coordinator")["args"].append("--no_such_flag=1")


def _listens(all_):
    args = container(all_, "lasp-coordinator")["args"]
    args[args.index("--api_address=0.0.0.0:7070")] = "--api_address=0.0.0.0:7075"


def _grace(all_):
    of(all_, "StatefulSet", "lasp-agent")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 60


def _claim(all_):
    all_.remove(of(all_, "PersistentVolumeClaim", "lasp-checkpoints"))


def _writable_data(all_):
    del next(m for m in container(all_, "lasp-agent")["volumeMounts"] if m["name"] == "data")["readOnly"]


def _certificate(all_):
    of(all_, "Certificate", "lasp-agent")["spec"]["dnsNames"].remove("lasp-agent-1")


def _queue(all_):
    of(all_, "LocalQueue", "lasp")["spec"]["clusterQueue"] = "other"


def _schema(all_):
    of(all_, "PodDisruptionBudget", "lasp-agent")["kind"] = "PodDisruptionBuget"


BROKEN = {
    "a field that there is not": (_unknown_field, "imagePullPolice"),
    "a word for a number": (_wrong_type, "replicas"),
    "a missing field": (_missing_field, "selector"),
    "half a port": (_bad_quantity, "containerPort"),
    "a field that a monitor has not": (_monitor_field, "intervall"),
    "a kind that there is not": (_schema, "PodDisruptionBuget"),
    "a selector beside its labels": (_selector, "selector does not match its pods' labels"),
    "a mount without a volume": (_mount, "no volume is named nowhere"),
    "a service to no port": (_service_port, "no container has the port grpc"),
    "a probe of another port": (_probe_port, "livenessProbe does not ask"),
    "a short start": (_short_start, "is killed while it opens a large store"),
    "little shared memory": (_small_shm, "may leave more state than its volumes in memory hold"),
    "a monitor of no port": (_monitor_port, "no container port is named http"),
    "a name that is no label": (_name, "its name is no DNS label"),
    "nothing denied": (_no_deny, "denies by default"),
    "a port that nobody reaches": (_not_admitted, "admits anyone to the port metrics"),
    "root": (_root, "does not run as 65532"),
    "a writable root": (_writable_root, "restricted security context"),
    "less requested than allowed": (_burstable, "Guaranteed"),
    "a flag that there is not": (_flag, "--no_such_flag"),
    "another port listened on": (_listens, "listens on"),
    "killed while draining": (_grace, "drain timeout"),
    "a claim that there is not": (_claim, "no claim is named lasp-checkpoints"),
    "writable data": (_writable_data, "mounted writable"),
    "an agent without a certificate": (_certificate, "lasp-agent-1 is not in"),
    "a queue of no cluster queue": (_queue, "no cluster queue is named other"),
}
