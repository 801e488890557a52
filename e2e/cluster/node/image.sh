#!/usr/bin/env bash
# Makes the node image of kind from compiled programs and Debian packages, with the images of all
# Kubernetes components inside, and keeps it as a Docker image and as an archive in the cache.
#
#   image.sh build   leaves the image in the Docker engine: as it is there, loaded from the archive, or made
#   image.sh name    prints the image's name, which follows from everything that it is made of
#   image.sh cached  succeeds when the image need not be made, only loaded
#   image.sh make    the work of build: puts the image together and packs the archive
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

components() { "$CLUSTER_DIR/node/components.sh" where "$1"; }
rootfs_archive() { "$CLUSTER_DIR/node/rootfs.sh" where; }

IN_NODE=(kind kubectl kubernetes containerd cni etcd coredns storage)

name() {
  local group
  {
    for group in "${IN_NODE[@]}"; do basename "$(components "$group")"; done
    basename "$(rootfs_archive)"
    declare -f make component_images pack with_libraries furnish
    (cd "$CLUSTER_DIR/node" && find pause.c files -type f | sort | xargs sha256sum)
  } | digest | sed "s/^/berth-kind-node:v$KUBERNETES_VERSION-/"
}

archive() {
  local image
  image=$(name)
  echo "$CACHE/node/${image#*:}.tar.gz"
}

in_engine() { docker image inspect "$(name)" >/dev/null 2>&1; }

# --- one component's image: an empty file system and what is put into it --------------------------

# pack IMAGE DIR CHANGE...: makes an image of the folder DIR.
pack() {
  local image=$1 dir=$2 change changes=()
  shift 2
  for change; do changes+=(--change "$change"); done
  mkdir -p "$dir/tmp"
  chmod 1777 "$dir/tmp"
  tar -C "$dir" --owner=0 --group=0 --numeric-owner -c . | docker import "${changes[@]}" - "$image" >/dev/null
  echo "packed $image"
}

# with_libraries ROOT DIR FILE...: copies programs of the file system ROOT into DIR with the shared
# libraries that they load.
with_libraries() {
  local root=$1 dir=$2 file
  shift 2
  {
    for file; do
      echo "$file"
      chroot "$root" ldd "/$file" 2>/dev/null | grep -o '/[^ ]*' | sed 's#^/##' || true
    done
  } | sort -u | while read -r file; do install -D "$root/$file" "$dir/$file"; done
}

# component_images ROOT: makes the image of every component under the names that kubeadm and kind
# expect, and prints nothing but fills IMAGES.
component_images() {
  local root=$1 work=$2 kubernetes image program dir
  kubernetes=$(components kubernetes)
  for image in $("$kubernetes/kubeadm" config images list --kubernetes-version "v$KUBERNETES_VERSION"); do
    program=${image##*/}
    program=${program%%:*}
    dir=$work/$program
    mkdir -p "$dir"
    case $program in
    kube-apiserver | kube-controller-manager | kube-scheduler)
      install -D "$kubernetes/$program" "$dir/usr/local/bin/$program"
      pack "$image" "$dir" 'ENV PATH=/usr/local/bin'
      ;;
    kube-proxy)
      install -D "$kubernetes/kube-proxy" "$dir/usr/local/bin/kube-proxy"
      (cd "$root" && with_libraries "$root" "$dir" usr/sbin/xtables-nft-multi usr/sbin/nft usr/sbin/conntrack \
        usr/bin/kmod usr/lib/*/xtables/*.so)
      for link in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
        ln -s xtables-nft-multi "$dir/usr/sbin/$link"
      done
      ln -s kmod "$dir/usr/bin/modprobe"
      mkdir -p "$dir/run" "$dir/var"
      ln -s ../run "$dir/var/run"
      pack "$image" "$dir" 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin'
      ;;
    coredns)
      install "$(components coredns)/coredns" "$dir/coredns"
      pack "$image" "$dir" 'ENTRYPOINT ["/coredns"]'
      ;;
    etcd)
      install -D "$(components etcd)/etcd" "$dir/usr/local/bin/etcd"
      pack "$image" "$dir" 'ENV PATH=/usr/local/bin'
      ;;
    pause)
      gcc -Os -static -s -o "$dir/pause" "$CLUSTER_DIR/node/pause.c"
      pack "$image" "$dir" 'ENTRYPOINT ["/pause"]'
      PAUSE_IMAGE=$image
      ;;
    *) die "kubeadm asks for an image that this recipe does not make: $image" ;;
    esac
    IMAGES+=("$image")
  done

  dir=$work/provisioner
  install -D "$(components storage)/local-path-provisioner" "$dir/usr/local/bin/local-path-provisioner"
  pack "$STORAGE_IMAGE" "$dir" 'ENV PATH=/usr/local/bin'
  dir=$work/helper
  install -D "$root/usr/bin/busybox" "$dir/bin/busybox" 2>/dev/null || install -D "$root/bin/busybox" "$dir/bin/busybox"
  for program in sh mkdir rm chmod chown ls cat echo sleep; do ln -s busybox "$dir/bin/$program"; done
  pack "$STORAGE_HELPER_IMAGE" "$dir" 'ENV PATH=/bin'
  IMAGES+=("$STORAGE_IMAGE" "$STORAGE_HELPER_IMAGE")
}

# --- the node's file system ------------------------------------------------------------------------

# furnish ROOT KIND_SOURCE: puts programs, kind's own files and settings into the base file system.
furnish() {
  local root=$1 source=$2 files=$2/images/base/files
  cp -r --no-preserve=mode,ownership "$files/." "$root/"
  chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin "$root"/kind/bin/*
  cp -r --no-preserve=ownership "$CLUSTER_DIR/node/files/." "$root/"
  chmod 755 "$root/usr/local/bin/static-cni"

  mkdir -p "$root"/{opt/cni/bin,etc/kubernetes/manifests,kind/manifests,etc/cni/net.d,etc/containerd/certs.d}
  install "$(components containerd)"/* "$root/usr/local/bin/"
  install "$(components cni)"/* "$root/opt/cni/bin/"
  install "$(components kubernetes)"/{kubeadm,kubelet} "$(components kubectl)/kubectl" "$root/usr/bin/"
  echo "v$KUBERNETES_VERSION" >"$root/kind/version"

  # The storage class that kind installs, as kind's source has it.
  awk '/^const defaultStorageManifest = `/ { on = 1; next } on && /^`/ { exit } on' \
    "$source/pkg/build/nodeimage/const_storage.go" |
    sed "s#\` + storageProvisionerImage + \`#$STORAGE_IMAGE#; s#\` + storageHelperImage + \`#$STORAGE_HELPER_IMAGE#" \
      >"$root/kind/manifests/default-storage.yaml"
  grep -q StorageClass "$root/kind/manifests/default-storage.yaml" || die "no storage manifest in the source of kind"
  : >"$root/kind/manifests/default-cni.yaml"
  sed -i "s#sandbox_image = .*#sandbox_image = \"$PAUSE_IMAGE\"#" "$root/etc/containerd/config.toml"

  # systemd starts what the node needs and nothing that a machine would.
  rm -f "$root"/{lib,usr/lib}/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
    "$root"/{lib,usr/lib}/systemd/system/{multi-user,local-fs,basic}.target.wants/* \
    "$root"/{lib,usr/lib}/systemd/system/sockets.target.wants/*{udev,initctl}* \
    "$root"/etc/systemd/system/*.wants/*
  echo 'ReadKMsg=no' >>"$root/etc/systemd/journald.conf"
  ln -sfn /lib/systemd/systemd "$root/usr/sbin/init"
  chroot "$root" systemctl enable kubelet.service containerd.service undo-mount-hacks.service static-cni.service
  chroot "$root" systemctl mask systemd-binfmt.service

  # What every container starts from: containerd's own default, with the hook of kind.
  chroot "$root" ctr oci spec |
    jq 'del(.process.rlimits) | .hooks.createContainer += [{ path: "/kind/bin/mount-product-files.sh" }]' \
      >"$root/etc/containerd/cri-base.json"
}

make() {
  local final image work source builder
  final=$(archive)
  image=$(name)
  mkdir -p "$CACHE/node"
  work=$(mktemp -d "$CACHE/node/work.XXXXXX")
  builder=berth-node-$$
  # shellcheck disable=SC2064
  trap "docker rm -f $builder >/dev/null 2>&1 || true
    docker image rm \${IMAGES[*]:-} $builder:base $builder:kind >/dev/null 2>&1 || true
    rm -rf --one-file-system '$work'" EXIT
  mkdir "$work/root" "$work/images"
  tar -C "$work/root" --numeric-owner -xzf "$(rootfs_archive)"

  source=$(GOFLAGS=-mod=mod GOWORK=off go mod download -json "sigs.k8s.io/kind@v$KIND_VERSION" | jq -r .Dir)
  STORAGE_IMAGE=$(sed -n 's/^const storageProvisionerImage = "\(.*\)"/\1/p' "$source/pkg/build/nodeimage/const_storage.go")
  STORAGE_HELPER_IMAGE=$(sed -n 's/^const storageHelperImage = "\(.*\)"/\1/p' "$source/pkg/build/nodeimage/const_storage.go")
  IMAGES=()
  component_images "$work/root" "$work/images"
  docker save -o "$work/components.tar" "${IMAGES[@]}"
  furnish "$work/root" "$source"

  # An import cannot say how a container is stopped: a build on top of it can.
  tar -C "$work/root" --numeric-owner -c . | docker import - $builder:base
  printf 'FROM %s\nENV container=docker\nSTOPSIGNAL SIGRTMIN+3\n' $builder:base |
    DOCKER_BUILDKIT=0 docker build -t $builder:kind -

  # containerd of the node itself takes the components' images into its store.
  docker run -d --name $builder --security-opt seccomp=unconfined --network none \
    -v "$work/components.tar:/components.tar:ro" --entrypoint sleep $builder:kind infinity
  docker exec -d $builder sh -c 'exec containerd >/dev/null 2>&1'
  wait_for 60 "containerd in the image" docker exec $builder ctr version
  docker exec $builder ctr -n k8s.io images import --local --no-unpack --all-platforms --digests /components.tar
  docker exec $builder sh -c 'kill $(pidof containerd) && while pidof containerd; do sleep 0.1; done; rm -rf /run/containerd'
  docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' $builder "$image"

  docker save "$image" | pigz -1 >"$final.partial"
  mv "$final.partial" "$final"
}

# forget_old: older images take much room: the archives of the two newest stay.
forget_old() {
  local old
  docker image ls -q berth-kind-node --filter "before=$(name)" | xargs -r docker image rm >/dev/null 2>&1 || true
  find "$CACHE/node" -name '*.tar.gz' -printf '%T@ %p\n' | sort -rn | tail -n +3 | cut -d' ' -f2- | while read -r old; do
    rm -f "$old"
  done
}

build() {
  local began
  began=$(date +%s)
  if in_engine; then return 0; fi
  if [ -f "$(archive)" ]; then
    say "loading the node image from the cache"
    logged node-load docker load -i "$(archive)" || die "the archive $(archive) could not be loaded: delete it and run this again"
    say "loaded the node image in $(($(date +%s) - began)) s"
    return 0
  fi
  # Debian packages and Go sources arrive over the network while the compiler has the cores.
  "$CLUSTER_DIR/node/rootfs.sh" build &
  local packages=$!
  "$CLUSTER_DIR/node/components.sh" build "${IN_NODE[@]}" || die "the node's programs could not be compiled"
  wait $packages || die "the node's file system could not be made"
  began=$(date +%s)
  # What a killed build left in the engine.
  docker ps -aq --filter 'name=^/berth-node-[0-9]' | xargs -r docker rm -f >/dev/null
  docker image ls --format '{{.Repository}}:{{.Tag}}' 'berth-node-*' | xargs -r docker image rm >/dev/null
  say "putting the node image together (log: $LOGS/node-image.log)"
  logged node-image "$0" make || die "the node image could not be put together"
  forget_old
  say "put the node image together in $(($(date +%s) - began)) s: $(name)"
}

case ${1:-} in
build) build ;;
name) name ;;
cached) in_engine || [ -f "$(archive)" ] ;;
make) make ;;
*) die "usage: image.sh build|name|cached" ;;
esac
