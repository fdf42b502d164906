"""The configuration files of the components: values in, text out."""

import json
import pathlib
import typing

from devcluster import settings


def _json(document: dict[str, typing.Any]) -> str:
    """Every file that wants YAML takes JSON too, and the standard library writes that."""
    return json.dumps(document, indent=2) + "\n"


def kubelet(state: pathlib.Path) -> str:
    """One node without a systemd, without swap rules, and with all its folders under the state."""
    pki = state / "pki"
    return _json(
        {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": settings.NODE_ADDRESS,
            "healthzBindAddress": settings.NODE_ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki / "server.crt"),
            "tlsPrivateKeyFile": str(pki / "server.key"),
            "containerRuntimeEndpoint": f"unix://{state}/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{settings.NAME}",
            "failCgroupV1": False,
            "failSwapOn": False,
            # The limits of pods hold; a limit around all pods needs cgroups this machine may lack.
            "enforceNodeAllocatable": [],
            "clusterDNS": [settings.NODE_ADDRESS],
            "clusterDomain": settings.CLUSTER_DOMAIN,
            # The host's name servers and search domains mean nothing in here.
            "resolvConf": str(state / "config" / "resolv.conf"),
            "maxPods": settings.MAX_PODS,
            "serializeImagePulls": False,
            "registryPullQPS": 0,
            "podLogsDir": str(state / "pod-logs"),
            "volumePluginDir": str(state / "kubelet" / "plugins-exec"),
            # A developer's disk is often nearly full: evicting pods for that helps nobody.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "5s",
        }
    )


def kube_proxy(state: pathlib.Path) -> str:
    """nftables; no word on the size of conntrack's table, which belongs to the whole machine."""
    return _json(
        {
            "kind": "KubeProxyConfiguration",
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "mode": "nftables",
            "clusterCIDR": settings.POD_CIDR,
            "hostnameOverride": settings.NAME,
            "clientConnection": {"kubeconfig": str(state / "config" / "kube-proxy.kubeconfig")},
            "healthzBindAddress": f"{settings.NODE_ADDRESS}:10256",
            "metricsBindAddress": f"{settings.NODE_ADDRESS}:10249",
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
    )


def cni(state: pathlib.Path) -> str:
    """A routed link per pod: on a bridge, answers between pods would go past the Service rules."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": settings.POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(state / "cni"),
    }
    return _json(
        {
            "cniVersion": "1.0.0",
            "name": settings.NAME,
            "plugins": [
                {"type": "ptp", "ipMasq": False, "ipam": addresses},
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
    )


def coredns(state: pathlib.Path) -> str:
    """Cluster names, and NXDOMAIN for the rest: there is nobody to forward to.

    No cache on purpose: a peer's name that was asked for a moment too early would stay unknown for
    its whole time to live, while the pods of a Job wait for each other.
    """
    address = settings.NODE_ADDRESS
    # Two blocks, because within one `template` would always answer before `kubernetes`.
    return f"""{settings.CLUSTER_DOMAIN}:53 in-addr.arpa:53 {{
    bind {address}
    errors
    health {address}:8080
    ready {address}:8181
    prometheus {address}:9153
    kubernetes {settings.CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {state}/config/coredns.kubeconfig
        pods insecure
        ttl 5
    }}
}}
.:53 {{
    bind {address}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def registry(storage: pathlib.Path) -> str:
    """Plain http: only the host and the pods of this machine can reach the address."""
    return _json(
        {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(storage)},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": {"addr": settings.REGISTRY_ADDRESS},
        }
    )


def registry_hosts() -> str:
    """containerd's word on the registry: its name is only a name, this is where it answers."""
    server = f"http://{settings.REGISTRY_ADDRESS}"
    return f'server = "{server}"\n\n[host."{server}"]\ncapabilities = ["pull", "resolve"]\n'


def containerd(state: pathlib.Path, *, runc: pathlib.Path, shim: pathlib.Path) -> str:
    """containerd for the kubelet alone, with every folder it lets one choose under the state."""
    runtime = "plugins.'io.containerd.cri.v1.runtime'"
    return f"""version = 3
root = '{state}/containerd/root'
state = '{state}/containerd/run'
# `opt` would make /opt/containerd; `nri` would make /var/run/nri.
disabled_plugins = [
  'io.containerd.internal.v1.opt',
  'io.containerd.nri.v1.nri',
  'io.containerd.snapshotter.v1.blockfile',
  'io.containerd.snapshotter.v1.erofs',
]

[grpc]
address = '{state}/containerd/containerd.sock'

[plugins.'io.containerd.cri.v1.images']
discard_unpacked_layers = true

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{settings.REGISTRY_NAME}/{settings.PAUSE_IMAGE}'

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{state}/config/certs.d'

[{runtime}]
# Without CAP_SYS_RESOURCE no score below one's own can be set, and every sandbox would fail.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[{runtime}.cni]
bin_dirs = ['/usr/lib/cni', '/opt/cni/bin']
conf_dir = '{state}/config/cni'

[{runtime}.containerd]
default_runtime_name = 'runc'

[{runtime}.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
runtime_path = '{shim}'

[{runtime}.containerd.runtimes.runc.options]
BinaryName = '{runc}'
Root = '{state}/runc'
"""
