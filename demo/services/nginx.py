"""nginx: TLS, the page, and the way to the API."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from demo.services.role import PreparationFailed, Role, RunHelper, Verdict, http_status
from demo.settings import make_owned
from demo.state import CHECKOUT, write_private

CONFIGURATION = """\
daemon off;
worker_processes 2;
error_log stderr notice;
pid @data@/nginx.pid;

events {
    worker_connections 512;
}

http {
    types {
        text/html html;
        text/css css;
        text/javascript js;
        application/json json;
        image/svg+xml svg;
    }
    default_type application/octet-stream;
    charset utf-8;

    log_format timed '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
                     '"$http_referer" "$http_user_agent" '
                     'rt=$request_time uct="$upstream_connect_time" '
                     'uht="$upstream_header_time" urt="$upstream_response_time"';
    access_log /dev/stdout timed;

    client_body_temp_path @data@/body;
    proxy_temp_path @data@/proxy;
    fastcgi_temp_path @data@/fastcgi;
    uwsgi_temp_path @data@/uwsgi;
    scgi_temp_path @data@/scgi;

    sendfile on;
    server_tokens off;
    keepalive_timeout 65s;
    client_max_body_size 10m;
    gzip on;
    gzip_types text/css text/javascript application/json;

    limit_req_zone $binary_remote_addr zone=api:1m rate=10r/s;
    limit_req_zone $binary_remote_addr zone=auth:1m rate=3r/s;

    upstream backend {
        server 127.0.0.1:@backend@;
        keepalive 8;
    }

    server {
        listen 127.0.0.1:@http@;
        server_name localhost app.allodoc.test;

        location = /nginx-health {
            access_log off;
            default_type text/plain;
            return 200 "ok\\n";
        }
        location / {
            return 301 https://$host:@https@$request_uri;
        }
    }

    server {
        listen 127.0.0.1:@https@ ssl;
        server_name localhost app.allodoc.test;

        ssl_certificate @tls@/server.pem;
        ssl_certificate_key @tls@/server.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:1m;

        add_header Strict-Transport-Security "max-age=31536000; includeSubDomains" always;
        add_header X-Content-Type-Options nosniff always;
        add_header X-Frame-Options SAMEORIGIN always;
        add_header Referrer-Policy strict-origin-when-cross-origin always;

        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_connect_timeout 5s;
        proxy_read_timeout 60s;
        proxy_send_timeout 60s;

        root @frontend@;

        location /api/ {
            limit_req zone=api burst=20 nodelay;
            proxy_pass http://backend;
        }
        # As in the real configuration, which the versioned path does not match.
        location /api/auth/ {
            limit_req zone=auth burst=5 nodelay;
            proxy_pass http://backend;
        }
        location ~* "-[0-9a-f]{8}\\.(?:js|css)$" {
            expires 1y;
            try_files $uri =404;
        }
        location / {
            try_files $uri $uri/ /index.html;
        }
    }
}
"""


class Nginx(Role):
    """The only service that users meet."""

    name = "nginx"
    stop_signal = signal.SIGQUIT  # "graceful": as the official image's STOPSIGNAL

    @property
    def data(self) -> Path:
        """Where it keeps its temporary files and its pid."""
        return self.folder / "data"

    @property
    def page(self) -> Path:
        """What it serves: the frontend, built."""
        return self.context.folder.checkout / "frontend" / "dist"

    @property
    def tls(self) -> Path:
        """Certificates and keys."""
        return self.folder / "tls"

    @property
    def configuration(self) -> Path:
        """Its configuration file."""
        return self.folder / "nginx.conf"

    def fixed_arguments(self) -> list[str]:
        """Which of all nginx this one is."""
        return ["-e", "stderr", "-p", f"{self.folder}/", "-c", str(self.configuration)]

    def command(self, env: Mapping[str, str]) -> list[str]:
        """The master in the foreground."""
        return [str(self.context.binaries.nginx), *self.fixed_arguments(), *self.extra_arguments(env)]

    def ports(self) -> list[tuple[int, int]]:
        """TLS and plain."""
        return [(443, self.context.ports["https"]), (80, self.context.ports["http"])]

    def version_command(self) -> list[str]:
        """Prints ``nginx version: nginx/1.22.1`` to stderr."""
        return [str(self.context.binaries.nginx), "-v"]

    def path(self) -> list[str]:
        """An nginx that knows its configuration."""
        return [str(self.folder / "bin")]

    def data_folders(self) -> list[tuple[Path, bool]]:
        """The page, the certificates, its own files."""
        return [(self.page, False), (self.tls, False), (self.data, True)]

    def runs_from_checkout(self) -> bool:
        """The page is the release's."""
        return True

    async def prepare(self, env: Mapping[str, str], run: RunHelper) -> None:
        """Configuration at every start of the demo; certificates when there are none or they end soon."""
        account = self.context.account
        make_owned(self.data, account)
        make_owned(self.tls, account)
        ports = self.context.ports
        places = {"data": self.data, "tls": self.tls, "frontend": self.page}
        numbers = {"backend": ports["backend"], "http": ports["http"], "https": ports["https"]}
        text = CONFIGURATION
        for name, value in {**places, **numbers}.items():
            text = text.replace(f"@{name}@", str(value))
        write_private(self.configuration, text)
        if account.foreign:
            os.chown(self.configuration, account.uid, account.gid)
        self.wrapper("nginx", self.context.binaries.nginx, self.fixed_arguments())
        certificate = [sys.executable, "-m", "demo.certificates", str(self.tls)]
        # As ourselves: the services' account need not be able to reach this Python.
        path = os.pathsep.join([str(CHECKOUT), *sys.path])
        code, output = await run(certificate, {**env, "PYTHONPATH": path}, as_ourselves=True)
        if code != 0:
            raise PreparationFailed(f"no certificates ({code}): {output.strip()[-2000:]}")
        if account.foreign:
            for file in self.tls.iterdir():
                os.chown(file, account.uid, account.gid)

    async def check_health(self, env: Mapping[str, str], run: RunHelper) -> Verdict:
        """A page that only nginx answers."""
        del env, run
        status, body = await http_status(self.context.ports["http"], "/nginx-health")
        return Verdict(status == 200, f"HTTP {status} {body.strip()[:200]}")
