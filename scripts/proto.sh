#!/bin/sh
# Makes services/proto/incident_pb2*.py from the protocol. Called by the Makefile: sh scripts/proto.sh PYTHON [FOLDER]
#
# protoc imports by the path of the .proto file, which is the package of the protocol and none of ours: that line is put right.
set -eu
python=$1
out=${2:-services/proto}
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
"$python" -m grpc_tools.protoc -I services/proto --python_out="$made" --pyi_out="$made" --grpc_python_out="$made" \
    llm/incident/v1/incident.proto
sed -i.before 's/^from llm\.incident\.v1 import/from services.proto import/' "$made"/llm/incident/v1/*.py
cp "$made"/llm/incident/v1/incident_pb2.py "$made"/llm/incident/v1/incident_pb2.pyi "$made"/llm/incident/v1/incident_pb2_grpc.py "$out"
