#!/usr/bin/env bash
# The desktop application of examples/desktop: the window itself on a virtual screen, once with the search on the
# device that draws and once on the CPU. Each run likes some films, waits for the results and saves what it shows.
# Needs a Vulkan driver (VK_DRIVER_FILES names one that runs on the processor, if it is to be that); installs Xvfb and the X11
# libraries where they are missing.
#
#     scripts/check-desktop.sh [FOLDER for the screenshots]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-$(mktemp -d)}
mkdir -p "$work"

if ! command -v xvfb-run > /dev/null || ! command -v xauth > /dev/null || ! ldconfig -p | grep -q libxkbcommon-x11; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
        xvfb xauth libx11-6 libx11-xcb1 libxcursor1 libxi6 libxrandr2 libxkbcommon-x11-0
fi

cargo build -p rails-desktop
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
for device in gpu cpu; do
    image=$work/desktop-$device.png
    rm -f "$image"
    timeout 600 xvfb-run -a -s "-screen 0 1280x800x24" "$target/debug/rails-desktop" --device "$device" --screenshot "$image"
    # The program fails where nothing was drawn; a window without its texts would still be small.
    bytes=$(stat -c %s "$image")
    if [ "$bytes" -lt 100000 ]; then
        echo "$image has $bytes bytes only: what is drawn?"
        exit 1
    fi
    echo "$image: $bytes bytes"
done
echo "-- the desktop application is well"
