"""A backend that is slow, blocked, silent about itself, busy, or leaking: made so by a script inside it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import requests

from tests.beds.embedded import Demo

SLOW_API = "checks/performance/test_slow_api.py"
HIGH_CPU = "checks/performance/test_high_cpu.py"

SLOW = """
const http = require('node:http');
const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, response) {
  const self = this, all = arguments;
  if (event === 'request' && request.url.includes('%s') && /%s/.test(request.headers['user-agent'] || '')) {
    setTimeout(() => emit.apply(self, all), 3300);
    return true;
  }
  return emit.apply(self, all);
};
"""


def _ask(demo: Demo, path: str, count: int) -> list[int]:
    def one(_: int) -> int:
        answer = requests.get(f"{demo.urls['https']}{path}", verify=str(demo.ca_file), timeout=20)
        return answer.status_code

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
