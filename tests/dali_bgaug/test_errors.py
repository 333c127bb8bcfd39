"""How programs end."""

import subprocess
import sys

PROGRAM = """
from dali_bgaug.errors import run_program
run_program(lambda: print("line\\n" * 100_000), "")
"""


def test_a_program_whose_reader_has_gone_ends_without_a_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stderr
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 1
    process.stderr.close()
