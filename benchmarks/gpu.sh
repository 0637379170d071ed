#!/usr/bin/env bash
# What only a machine with a CUDA device can tell, in at most eight minutes and without a network: the tests marked
# "gpu" on both SpikingJelly lines (2.0 with Triton or native CUDA, 0.0.0.0.14 with CuPy), then simulation_speed.py.
#
#   benchmarks/gpu.sh [--wheels DIR] [--shared DIR] [--out DIR] [--rounds N]
#
# DIR of --wheels holds wheels of spikingjelly 2.0.0 and 0.0.0.0.14 and of whatever else the machine's Python lacks
# (`pip download --no-deps`); without it what is installed is used, and 0.0.0.0.14 is left out. --shared as for
# simulation_speed.py. DIR of --out receives gpu_tests.txt, gpu_speed.txt and gpu_speed.json.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
wheels="" shared="" out=benchmarks/results rounds=5
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=$2 ;;
        --shared) shared=$2 ;;
        --out) out=$2 ;;
        --rounds) rounds=$2 ;;
        *) echo "gpu.sh: $1 is not known; allowed are --wheels, --shared, --out and --rounds" >&2; exit 2 ;;
    esac
    shift 2
done
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

install() { "$python" -m pip install -q --no-index --no-deps --no-compile --target "$@" || exit 1; }
fourteen=""
if [ -n "$wheels" ]; then
    others=$(find "$wheels" -name '*.whl' ! -name 'spikingjelly-0.0.0.0.14-*')
    # shellcheck disable=SC2086 # names of wheels have no spaces
    install "$work/site" $others
    export PYTHONPATH=$work/site:$PYTHONPATH
    if [ -n "$(find "$wheels" -name 'spikingjelly-0.0.0.0.14-*.whl')" ]; then
        fourteen=$work/fourteen
        install "$fourteen" "$wheels"/spikingjelly-0.0.0.0.14-*.whl
    fi
fi

failed=0
tests() {
    "$python" -W ignore -c 'import torch, sj_ann2snn.compat as c; print(f"\nSpikingJelly {c.spikingjelly_version()}, torch {torch.__version__}, {torch.cuda.get_device_name()}")'
    # The versions of other packages are that machine's own: what they warn of is no failure of ours.
    "$python" -m pytest tests/behaviour/test_gpu.py -n 0 -q -rs -W ignore -p no:cacheprovider || failed=1
}
{
    tests
    [ -z "$fourteen" ] || PYTHONPATH=$fourteen:$PYTHONPATH tests
} 2>&1 | tee "$out/gpu_tests.txt"

networks="demo"
[ -z "$shared" ] || networks="resnet20 vgg_max"
"$python" -c "import torchvision" 2>/dev/null && networks="$networks resnet34"
# shellcheck disable=SC2086 # several words
"$python" -W ignore benchmarks/simulation_speed.py --device cuda --rounds "$rounds" --networks $networks \
    --json "$out/gpu_speed.json" ${shared:+--shared "$shared"} ${fourteen:+--spikingjelly-14 "$fourteen"} 2>&1 |
    tee "$out/gpu_speed.txt"
exit $failed
