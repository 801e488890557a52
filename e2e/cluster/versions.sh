# shellcheck shell=bash disable=SC2034
# The versions of everything that the cluster is made of, in one place: sourced by lib.sh.
# A change here rebuilds what depends on it and nothing else.

KIND_VERSION=0.30.0

# The published node image that this kind release was made with (way "published").
PUBLISHED_NODE_IMAGE=kindest/node:v1.34.0@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a

# The node image built here (way "built"). Every version below is that of a Go module.
# Kubernetes stays below 1.35, whose kubelet refuses hosts with cgroup v1.
KUBERNETES_VERSION=1.34.4
CONTAINERD_VERSION=2.1.4
CNI_PLUGINS_VERSION=1.7.1
ETCD_VERSION=3.6.5
COREDNS_VERSION=1.12.1
LOCAL_PATH_VERSION=0.0.30

# Clients that the registry's tests use, and a registry that they replicate from and to.
CRANE_VERSION=0.20.6
ORAS_VERSION=1.2.3
DISTRIBUTION_VERSION=3.1.1

# The oldest Go that compiles all of these, and the release fetched where Go is missing or older.
GO_MINIMUM=1.25.0
GO_FETCHED=1.25.5
