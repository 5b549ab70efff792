"""`python -m tests.wild FOLDER [--json FILE]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.wild.campaign import as_json, repositories, run

parser = argparse.ArgumentParser(prog="python -m tests.wild", description="safe mode over checked-out repositories")
parser.add_argument("folder", type=Path, help="has one folder a repository, owner+name")
parser.add_argument("--json", type=Path, help="write the rewrites there, too")
arguments = parser.parse_args()
campaign = run(arguments.folder.absolute(), repositories())
if arguments.json is not None:
    arguments.json.write_text(as_json(campaign), "utf-8")
print(campaign.report())
