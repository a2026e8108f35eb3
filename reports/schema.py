"""``python -m reports.schema``: write ``snapshot.schema.json``, the JSON schema of a snapshot, from its models."""

from __future__ import annotations

import json
from pathlib import Path

from allodoc_health.snapshot import json_schema

if __name__ == "__main__":
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    Path(__file__).with_name("snapshot.schema.json").write_text(f"{text}\n", "utf-8")
