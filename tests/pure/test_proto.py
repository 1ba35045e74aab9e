"""What is checked in of the protocol over gRPC is what `make proto` makes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_python_of_the_protocol_is_what_make_proto_makes(tmp_path: Path) -> None:
    subprocess.run(
        ["sh", "scripts/proto.sh", sys.executable, str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )

    made = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert made == {name: (ROOT / "services/proto" / name).read_text() for name in made}
    assert len(made) == 3
