#!/bin/sh
# Makes the Python environment of the gRPC tests: setup.sh FOLDER. At once done if the folder holds it already.
set -eu
folder=${1:?usage: setup.sh FOLDER}
requirements=$(dirname "$0")/requirements.txt
cmp -s "$requirements" "$folder/installed.txt" && exit 0
if ! python3 -m venv "$folder"; then
    echo "python3 cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
fi
"$folder/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
# Written last: an interrupted set-up starts again.
cp "$requirements" "$folder/installed.txt"
