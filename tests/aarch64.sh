#!/bin/sh
# The tests on aarch64 under qemu, for `make test-aarch64`. Everything goes into build/aarch64:
# Debian's python3 for arm64, wheels for it, a copy of this tree and its cross-compiled extension.
#
#   tests/aarch64.sh PYTHON TORCH ARGS...     a Python with pip, torch's version, pytest's arguments
set -eu

pip="$1 -m pip" torch=$2
shift 2
here=$PWD/build/aarch64
root=$here/root site=$here/site python=$here/python
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)

missing="${qemu:-qemu-user-static} $(command -v aarch64-linux-gnu-g++ || echo g++-aarch64-linux-gnu)"
missing=$(printf '%s\n' $missing | grep -v / || true)
if [ -n "$missing" ]; then
  echo "test-aarch64 needs a Debian machine with more packages: apt install" $missing
  exit 1
fi

if [ ! -e "$root/.complete" ]; then
  rm -rf "$root" "$here/apt"
  mkdir -p "$root/proc" "$here/apt/lists/partial" "$here/apt/archives/partial"
  : >"$here/apt/status" # nothing is installed: apt neither needs root nor sees the machine's own
  apt="apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::Cache=$here/apt
    -o Dir::State=$here/apt -o Dir::State::Status=$here/apt/status"
  $apt update
  $apt install --yes --no-install-recommends --download-only python3 libstdc++6 libgomp1
  for package in "$here"/apt/archives/*.deb; do dpkg-deb --extract "$package" "$root"; done
  [ -e "$root/lib" ] || ln -s usr/lib "$root/lib"
  # torch asks the kernel, which qemu does not play, for the processor: a Neoverse N1.
  cpu=$root/sys/devices/system/cpu/cpu0/regs/identification
  mkdir -p "$cpu"
  echo 0x00000000413fd0c1 >"$cpu/midr_el1"
  printf 'processor : %d\nCPU implementer : 0x41\nCPU architecture : 8\nCPU part : 0xd0c\n\n' \
    $(seq 0 $(($(nproc --all) - 1))) >"$root/proc/cpuinfo"
  touch "$root/.complete"
fi
interpreter=$(ls "$root"/usr/bin/python3.?*)

install() {
  $pip install -q --no-compile --target "$site" --only-binary=:all: --implementation cp \
    --python-version "${interpreter##*python}" --platform manylinux2014_aarch64 \
    $(seq -f '--platform=manylinux_2_%g_aarch64' 17 28) "torch==$1" \
    numpy pytest pytest-benchmark hypothesis setuptools wheel && touch "$site/.torch-$torch"
}
if [ ! -e "$site/.torch-$torch" ]; then
  rm -rf "$site"
  install "$torch+cpu" || {
    echo "No CPU build of torch $torch was found; taking the index's default build, of 5 GB."
    install "$torch"
  }
fi

# For the tests it is sys.executable. What it starts, the cross compiler too, runs outside qemu.
cat >"$python" <<END
#!/bin/sh
export PYTHONHOME=$root/usr PYTHONPATH=$site:$here/tree\${PYTHONPATH:+:\$PYTHONPATH}
exec $qemu -L $root -0 $python $interpreter "\$@"
END
chmod +x "$python"

mkdir -p "$here/tree"
find "$here/tree" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
cp -rp csrc dsa_kernels tests bench docs setup.py pyproject.toml README.md Makefile LICENSE \
  "$here/tree"
cd "$here/tree"
rm -f dsa_kernels/_C*.so
CC=aarch64-linux-gnu-gcc CXX=aarch64-linux-gnu-g++ "$python" setup.py -q build_ext --inplace
exec "$python" -m pytest --hypothesis-profile=ci -m "not slow" "$@"
