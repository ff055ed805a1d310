"""Make this folder anew with another version: `python tests/runs/former_run/make.py FOLDER`.

A tiny model, a run of it that a kill ends after its fifth step, and what the same run writes where
nothing kills it. Made by commit 27cafbb; tensorboard/ was left out, and the paths in Orbax's
commit_success.txt were made relative.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from real_runs import finished, train_command, wait_for_step
from tiny_chat_model import write_tiny_chat_model

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    write_tiny_chat_model(Path("model"))
    killed = subprocess.Popen(train_command("model", "run"), stderr=subprocess.PIPE, text=True)
    wait_for_step(Path("run"), 4, killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert finished(train_command("model", "whole")).returncode == 0
